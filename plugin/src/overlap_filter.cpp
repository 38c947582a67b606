#include "overlap_filter.hpp"

#include <cmath>

namespace tonewood {
namespace {

std::vector<double> bin_frequencies(std::size_t length, unsigned rate) {
    std::vector<double> hz(length / 2 + 1);
    for (std::size_t k = 0; k < hz.size(); ++k) hz[k] = double(k) * rate / double(length);
    return hz;
}

}  // namespace

// The transform has twice the window's length: the filter's impulse response must fit beside the window.
OverlapFilter::OverlapFilter(const Model& model, const FrameLayout& analysis, unsigned rate)
    : layout_{analysis.window, analysis.hop, 2 * fast_fft_length(analysis.window)},
      fft_(layout_.fft),
      interpolation_(model, bin_frequencies(layout_.fft, rate)),
      spectrum_(layout_.fft),
      mid_gain_(layout_.fft / 2 + 1),
      side_gain_(layout_.fft / 2 + 1),
      mid_change_(layout_.window),
      side_change_(layout_.window),
      weight_(layout_.window) {
    for (double value : hann_window(layout_.window)) {
        taper_.push_back(float(value));
        synthesis_taper_.push_back(float(value / double(layout_.fft)));
    }
}

void OverlapFilter::reset() {
    for (Floats* values : {&mid_change_, &side_change_, &weight_}) std::fill(values->begin(), values->end(), 0.0f);
}

void OverlapFilter::add_frame(const float* mid, const float* side, const Floats& mid_db, const Floats& side_db,
                              float gain_db) {
    for (std::size_t n = 0; n < layout_.window; ++n) {
        spectrum_.re[n] = mid[n] * taper_[n];
        spectrum_.im[n] = side[n] * taper_[n];
    }
    for (Floats* part : {&spectrum_.re, &spectrum_.im}) std::fill(part->begin() + layout_.window, part->end(), 0.0f);
    fft_.forward(spectrum_);
    apply_gains(mid_db, side_db, gain_db);
    fft_.inverse(spectrum_);
    for (std::size_t n = 0; n < layout_.window; ++n) {
        mid_change_[n] += spectrum_.re[n] * synthesis_taper_[n];
        side_change_[n] += spectrum_.im[n] * synthesis_taper_[n];
        weight_[n] += taper_[n] * taper_[n];
    }
}

// With Z the transform of mid + i side, that of mid is (Z[k] + conj Z[-k]) / 2, and i times that of side is
// (Z[k] - conj Z[-k]) / 2. Hence factors m and s give (m + s) / 2 Z[k] + (m - s) / 2 conj Z[-k].
void OverlapFilter::apply_gains(const Floats& mid_db, const Floats& side_db, float gain_db) {
    constexpr float nepers_per_db = 0.115129255f;  // of amplitude
    const auto set_changes = [&](const Floats& rows_db, Floats& changes) {
        interpolation_.gains(rows_db, changes.data());
        for (float& value : changes) value = std::exp(nepers_per_db * (value + gain_db)) - 1;
    };
    const bool linked = &mid_db == &side_db;
    set_changes(mid_db, mid_gain_);
    if (!linked) set_changes(side_db, side_gain_);
    const Floats& side_gain = linked ? mid_gain_ : side_gain_;
    float *re = spectrum_.re.data(), *im = spectrum_.im.data();
    const std::size_t length = layout_.fft, half = length / 2;
    for (std::size_t k : {std::size_t(0), half}) {
        re[k] *= mid_gain_[k];
        im[k] *= side_gain[k];
    }
    for (std::size_t k = 1; k < half; ++k) {
        const float sum = 0.5f * (mid_gain_[k] + side_gain[k]), difference = 0.5f * (mid_gain_[k] - side_gain[k]);
        const float a_re = re[k], a_im = im[k], b_re = re[length - k], b_im = im[length - k];
        re[k] = sum * a_re + difference * b_re;
        im[k] = sum * a_im - difference * b_im;
        re[length - k] = sum * b_re + difference * a_re;
        im[length - k] = sum * b_im - difference * a_im;
    }
}

void OverlapFilter::advance() {
    for (Floats* values : {&mid_change_, &side_change_, &weight_}) {
        std::copy(values->begin() + layout_.hop, values->end(), values->begin());
        std::fill(values->end() - layout_.hop, values->end(), 0.0f);
    }
}

}  // namespace tonewood
