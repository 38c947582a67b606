#include "mask_shape.hpp"

#include <algorithm>

#include "units.hpp"

namespace tonewood {
namespace {

constexpr float largest_gain_db = 30, step_db = 0.002f;
constexpr double limit_fade_octaves = 0.5;
constexpr int scaling_rounds = 100;

double hz_to_mel(double hz) { return 2595 * std::log10(1 + hz / 700); }

}  // namespace

void quantize_mask(Floats& mask_db) {
    for (float& gain : mask_db)
        gain = std::nearbyint(std::clamp(gain, -largest_gain_db, largest_gain_db) / step_db) * step_db;
}

MaskShape::MaskShape(const Model& model)
    : widths_(model.rows),
      scale_(model.rows),
      next_scale_(model.rows),
      weights_(std::size_t(model.rows) * model.rows),
      shares_(model.rows, 1.0f),
      input_(model.rows) {
    // A row at 0 Hz counts as an octave below the next one.
    const float lowest = model.row_hz[0] > 0 || model.rows == 1 ? model.row_hz[0] : model.row_hz[1];
    for (float hz : model.row_hz) octaves_.push_back(std::log2(std::max(hz, std::max(lowest, 1.0f) / 2)));
    // Octaves that each row represents.
    const std::size_t last = octaves_.size() - 1;
    for (std::size_t row = 0; row <= last && last > 0; ++row) {
        const std::size_t below = row > 0 ? row - 1 : 0, above = std::min(row + 1, last);
        widths_[row] = (octaves_[above] - octaves_[below]) / double(above - below);
    }
}

void MaskShape::set(float smooth_octaves, float low_hz, float high_hz) {
    if (smooth_octaves != smooth_octaves_) set_smoothing(smooth_octaves);
    if (low_hz != low_hz_ || high_hz != high_hz_) set_limits(low_hz, high_hz);
    smooth_octaves_ = smooth_octaves;
    low_hz_ = low_hz;
    high_hz_ = high_hz;
}

// An average over a Hann window. Rows and columns are scaled to the sums of an average in both
// directions (Sinkhorn and Knopp 1967), so that the mean over octaves stays.
void MaskShape::set_smoothing(double width) {
    const std::size_t rows = octaves_.size();
    if (width <= 0) return;
    for (std::size_t i = 0; i < rows; ++i)
        for (std::size_t j = 0; j < rows; ++j) {
            const double distance = std::abs(octaves_[i] - octaves_[j]) / width;
            weights_[i * rows + j] = distance < 1 ? float(widths_[j] * (0.5 + 0.5 * std::cos(pi * distance))) : 0.0f;
        }
    const auto scaled_sum = [&](std::size_t i) {
        double sum = 0;
        for (std::size_t j = 0; j < rows; ++j) sum += weights_[i * rows + j] * scale_[j];
        return sum;
    };
    std::fill(scale_.begin(), scale_.end(), 1.0);
    double change = 1;
    for (int round = 0; round < scaling_rounds && change > 1e-7; ++round) {
        change = 0;
        for (std::size_t i = 0; i < rows; ++i) {
            next_scale_[i] = std::sqrt(scale_[i] / scaled_sum(i));
            change = std::max(change, std::abs(next_scale_[i] - scale_[i]));
        }
        std::swap(scale_, next_scale_);
    }
    for (std::size_t i = 0; i < rows; ++i) {
        const double sum = scaled_sum(i);
        for (std::size_t j = 0; j < rows; ++j)
            weights_[i * rows + j] = float(weights_[i * rows + j] * scale_[j] / sum);
    }
}

void MaskShape::set_limits(double low_hz, double high_hz) {
    for (std::size_t row = 0; row < octaves_.size(); ++row) {
        double outside = 0;  // octaves
        if (low_hz > 0) outside = std::max(outside, std::log2(low_hz) - octaves_[row]);
        if (high_hz > 0) outside = std::max(outside, octaves_[row] - std::log2(high_hz));
        shares_[row] = float(0.5 + 0.5 * std::cos(pi * std::min(outside / limit_fade_octaves, 1.0)));
    }
}

void MaskShape::apply(Floats& mask_db) {
    const std::size_t rows = mask_db.size();
    if (smooth_octaves_ > 0) {
        std::copy(mask_db.begin(), mask_db.end(), input_.begin());
        for (std::size_t i = 0; i < rows; ++i) {
            float sum = 0;
            for (std::size_t j = 0; j < rows; ++j) sum += weights_[i * rows + j] * input_[j];
            mask_db[i] = sum;
        }
    }
    for (std::size_t row = 0; row < rows; ++row) mask_db[row] *= shares_[row];
}

RowInterpolation::RowInterpolation(const Model& model, const std::vector<double>& hz) {
    std::vector<double> centres;
    for (float centre : model.row_hz) centres.push_back(hz_to_mel(centre));
    for (double frequency : hz) {
        const double mel = std::clamp(hz_to_mel(frequency), centres.front(), centres.back());
        std::size_t row = 0;
        while (row + 2 < centres.size() && centres[row + 1] <= mel) ++row;
        const double span = model.rows > 1 ? centres[row + 1] - centres[row] : 1;
        const double fraction = (mel - centres[row]) / span;
        // Nothing is known about frequencies above the top, and a hard edge would ring.
        const double octaves_above = std::log2(std::max(frequency / model.top_hz(), 1.0));
        const double fade = std::clamp(1 - octaves_above, 0.0, 1.0);
        weights_.push_back({row, float(fade * (1 - fraction)), float(fade * fraction)});
    }
}

void RowInterpolation::gains(const Floats& rows_db, float* gains_db) const {
    const std::size_t last = rows_db.size() - 1;
    for (std::size_t bin = 0; bin < weights_.size(); ++bin) {
        const auto [row, low, high] = weights_[bin];
        gains_db[bin] = low * rows_db[row] + high * rows_db[std::min(row + 1, last)];
    }
}

}  // namespace tonewood
