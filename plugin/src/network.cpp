#include "network.hpp"

#include <algorithm>
#include <cmath>

#include "units.hpp"
#include "vector_clones.hpp"

namespace tonewood {
namespace {

// As in priors/predictor.py.
constexpr float gain_scale_db = 8, level_scale_db = 15, range_db = 75, inactive_db = 55, fade_db = 15;

float gelu(float x) { return x * 0.5f * std::erfc(-x * 0.70710678f); }

// outputs += weight * inputs, with the weight [input, output]. Four inputs at once save memory traffic.
TONEWOOD_VECTOR_CLONES void multiply_add(const float* weight, const float* inputs, std::size_t count, Floats& outputs) {
    const std::size_t width = outputs.size();
    float* __restrict y = outputs.data();
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4, weight += 4 * width) {
        const float a = inputs[i], b = inputs[i + 1], c = inputs[i + 2], d = inputs[i + 3];
        for (std::size_t o = 0; o < width; ++o)
            y[o] += a * weight[o] + b * weight[o + width] + c * weight[o + 2 * width] + d * weight[o + 3 * width];
    }
    for (; i < count; ++i, weight += width)
        for (std::size_t o = 0; o < width; ++o) y[o] += inputs[i] * weight[o];
}

}  // namespace

Network::Network(const Model& model, double hop_seconds)
    : model_(model),
      decay_(std::exp(-hop_seconds / model.level_seconds)),
      relative_(model.rows),
      hidden_(model.width),
      sums_(model.width) {
    for (unsigned i = 0; i < model.depth; ++i) {
        const std::size_t frames = (model.kernel - 1) * (std::size_t(1) << i) + 1;
        past_.push_back({frames, 0, Floats(frames * model.width)});
    }
}

void Network::reset() {
    squares_ = powers_ = 0;
    for (Past& past : past_) {
        past.next = 0;
        std::fill(past.inputs.begin(), past.inputs.end(), 0.0f);
    }
}

// Set the levels relative to the running level; return the frame's activity, 0 to 1.
float Network::relative_levels(const float* rows_db) {
    double power = 0;
    for (std::size_t row = 0; row < model_.rows; ++row) power += power_of_db(rows_db[row]);
    // A mean of the power weighted by the power itself: pauses do not lower it.
    squares_ = decay_ * squares_ + power * power;
    powers_ = decay_ * powers_ + power;
    const float level = float(10 * std::log10(squares_ / powers_));
    double relative_power = 0;
    for (std::size_t row = 0; row < model_.rows; ++row) {
        relative_[row] = std::max(rows_db[row] - level, -range_db);
        relative_power += power_of_db(relative_[row]);
    }
    return std::clamp((float(10 * std::log10(relative_power)) + inactive_db) / fade_db, 0.0f, 1.0f);
}

void Network::convolve(const Layer& layer, std::size_t dilation, Past& past) {
    std::copy(hidden_.begin(), hidden_.end(), &past.inputs[past.next * model_.width]);
    past.next = (past.next + 1) % past.frames;  // now the oldest
    sums_ = layer.bias;
    for (std::size_t tap = 0; tap < model_.kernel; ++tap) {
        const std::size_t frame = (past.next + tap * dilation) % past.frames;
        multiply_add(&layer.weight[tap * model_.width * model_.width], &past.inputs[frame * model_.width],
                     model_.width, sums_);
    }
    for (std::size_t i = 0; i < model_.width; ++i) hidden_[i] += gelu(sums_[i]);
}

void Network::predict(const float* rows_db, float* mask_db) {
    const float activity = relative_levels(rows_db);
    for (std::size_t row = 0; row < model_.rows; ++row)
        relative_[row] = (relative_[row] - model_.row_mean[row]) / level_scale_db;
    hidden_ = model_.first.bias;
    multiply_add(model_.first.weight.data(), relative_.data(), model_.rows, hidden_);
    for (float& value : hidden_) value = gelu(value);
    for (std::size_t i = 0; i < past_.size(); ++i) convolve(model_.middle[i], std::size_t(1) << i, past_[i]);
    relative_ = model_.last.bias;
    multiply_add(model_.last.weight.data(), hidden_.data(), model_.width, relative_);
    // Silence gives nothing to adapt to, and background noise must not be modulated.
    for (std::size_t row = 0; row < model_.rows; ++row)
        mask_db[row] = model_.static_db[row] + activity * gain_scale_db * relative_[row];
}

}  // namespace tonewood
