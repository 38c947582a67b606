#include "analysis.hpp"

#include <cmath>

namespace tonewood {

namespace {

// The layout at a rate, with the durations that the model has at its own.
FrameLayout scale_to_rate(const Model& model, unsigned rate) {
    // nearbyint rounds halves to even, as Python's round does.
    const double ratio = double(rate) / model.rate;
    const auto window = std::size_t(std::nearbyint(model.window * ratio));
    const auto fft = std::size_t(std::nearbyint(model.fft * ratio));
    return {window, std::size_t(std::nearbyint(model.hop * ratio)), std::max(window, fft)};
}

}  // namespace

Analysis::Analysis(const Model& model, unsigned rate)
    : model_(model),
      layout_(scale_to_rate(model, rate)),
      windowed_(layout_.window),
      power_(model.bins()),
      transform_(layout_.window, layout_.fft, model.bins()),
      floor_power_(std::pow(10.0f, model.floor_db / 10)) {
    // A full-scale sine peaks at 1: a Hann window sums to window / 2, half of it at each sign.
    for (double value : hann_window(layout_.window)) taper_.push_back(float(value * 4 / double(layout_.window)));
    for (std::size_t row = 0; row < model.rows; ++row) {
        const float* weights = &model.filterbank[row * model.bins()];
        std::size_t first = 0, end = model.bins();
        while (first + 1 < end && weights[first] == 0) ++first;
        while (end > first + 1 && weights[end - 1] == 0) --end;
        bands_.push_back({first, end - first});
    }
}

void Analysis::rows(const float* samples, float* rows_db) {
    for (std::size_t n = 0; n < layout_.window; ++n) windowed_[n] = samples[n] * taper_[n];
    transform_.power(windowed_.data(), power_.data());
    for (float& power : power_) power = std::max(power, floor_power_);
    for (std::size_t row = 0; row < bands_.size(); ++row) {
        const auto [first, count] = bands_[row];
        const float* weights = &model_.filterbank[row * model_.bins() + first];
        float sum = 0;
        for (std::size_t k = 0; k < count; ++k) sum += weights[k] * power_[first + k];
        rows_db[row] = 10 * std::log10(sum);
    }
}

}  // namespace tonewood
