#include "stream.hpp"

#include <cmath>

namespace tonewood {
namespace {

constexpr float largest_sample = 1e3f;  // 60 dB above full scale: a fault, not audio

float audio_or_silence(float sample) { return std::abs(sample) <= largest_sample ? sample : 0.0f; }

std::size_t history_size(const Model& model, const FrameLayout& layout) {
    return 2 * layout.window + (model.lookahead + 2) * layout.hop;
}

double hop_seconds(const FrameLayout& layout, unsigned rate) { return double(layout.hop) / rate; }

}  // namespace

Stream::Chain::Chain(const Model& model, std::size_t capacity, double hop_seconds)
    : history(capacity),
      network(model, hop_seconds),
      rows(model.lookahead + 1, Floats(model.rows)),
      predicted(model.rows),
      mask(model.rows),
      gains(model.rows) {}

Stream::Stream(const Model& model, unsigned rate, std::size_t channels)
    : model_(model),
      channels_(channels),
      analysis_(model, rate),
      filter_(model, analysis_.layout(), rate),
      shape_(model),
      follower_(model, hop_seconds(analysis_.layout(), rate)),
      limiter_(rate),
      mid_(model, history_size(model, analysis_.layout()), double(model.hop) / model.rate),
      side_(model, history_size(model, analysis_.layout()), double(model.hop) / model.rate),
      levels_(model.rows, model.floor_db) {
    const std::size_t capacity = history_size(model, analysis_.layout()) + latency();
    for (std::vector<History>* histories : {&input_, &output_, &delayed_})
        histories->assign(channels, History(capacity));
    reset();
}

void Stream::reset() {
    for (std::vector<History>* histories : {&input_, &output_, &delayed_})
        for (History& history : *histories) history.clear();
    for (Chain* chain : {&mid_, &side_}) {
        chain->history.clear();
        chain->network.reset();
        std::fill(chain->mask.begin(), chain->mask.end(), 0.0f);
    }
    filter_.reset();
    follower_.reset();
    limiter_.reset();
    pushed_ = analysed_ = 0;
    // As much silence as the latency comes first.
    pulled_ = -std::int64_t(latency());
    side_is_active_ = false;
}

std::size_t Stream::latency() const {
    const FrameLayout &analysis = analysis_.layout(), &filter = filter_.layout();
    return analysis.samples_after() + model_.lookahead * analysis.hop + filter.samples_before() - 1;
}

// Samples that must have arrived before the next frame can be analysed and the one before the lookahead filtered.
std::int64_t Stream::samples_needed() const {
    const std::int64_t filtered = std::max<std::int64_t>(0, analysed_ - model_.lookahead);
    return std::max(analysis_.layout().samples_needed(analysed_), filter_.layout().samples_needed(filtered));
}

void Stream::process(const float* const* input, float* const* wet, float* const* dry, std::size_t count,
                     const Controls& controls) {
    for (std::size_t start = 0; start < count;) {
        const auto step = std::size_t(std::min<std::int64_t>(std::int64_t(count - start), samples_needed() - pushed_));
        push(input, start, step);
        while (pushed_ >= samples_needed()) process_frame(controls);
        for (std::size_t i = start; i < start + step; ++i, ++pulled_)
            for (std::size_t c = 0; c < channels_; ++c) {
                wet[c][i] = pulled_ < 0 ? 0.0f : *output_[c].read(pulled_);
                dry[c][i] = pulled_ < 0 ? 0.0f : *delayed_[c].read(pulled_);
            }
        start += step;
    }
}

void Stream::push(const float* const* input, std::size_t start, std::size_t count) {
    for (std::size_t i = start; i < start + count; ++i, ++pushed_) {
        float samples[most_channels] = {};
        for (std::size_t c = 0; c < channels_; ++c) {
            samples[c] = audio_or_silence(input[c][i]);
            input_[c].write(pushed_, samples[c]);
        }
        if (channels_ == 1) samples[1] = samples[0];
        mid_.history.write(pushed_, float(0.5 * (double(samples[0]) + samples[1])));
        side_.history.write(pushed_, float(0.5 * (double(samples[0]) - samples[1])));
    }
}

void Stream::analyse(Chain& chain, const Controls& controls) {
    const std::size_t slots = chain.rows.size();
    const FrameLayout& layout = analysis_.layout();
    Floats& rows = chain.rows[std::size_t(analysed_) % slots];
    const std::int64_t start = analysed_ * std::int64_t(layout.hop) - std::int64_t(layout.samples_before());
    analysis_.rows(chain.history.read(start), rows.data());
    chain.network.predict(rows.data(), chain.predicted.data());
    if (!controls.freeze) {
        chain.mask = chain.predicted;
        quantize_mask(chain.mask);
    }
    chain.gains = chain.mask;
    shape_.set(controls.smooth_octaves, controls.low_hz, controls.high_hz);
    shape_.apply(chain.gains);
}

void Stream::process_frame(const Controls& controls) {
    if (analysed_ == 0) {
        const std::size_t before = std::max(analysis_.layout().samples_before(), filter_.layout().samples_before());
        for (Chain* chain : {&mid_, &side_}) chain->history.mirror_start(before);
    }
    const bool has_side = controls.mid_side && channels_ == 2;
    if (has_side && !side_is_active_) {
        side_.network.reset();
        side_.mask = mid_.mask;
    }
    side_is_active_ = has_side;
    analyse(mid_, controls);
    if (has_side) analyse(side_, controls);
    const std::int64_t frame = analysed_++ - model_.lookahead;
    if (frame < 0) return;

    const std::size_t slot = std::size_t(frame) % mid_.rows.size();
    follower_.update(mid_.rows[slot].data(), mid_.gains.data());
    if (has_side) follower_.add(side_.rows[slot].data(), side_.gains.data());
    levels_ = mid_.rows[slot];
    for (std::size_t row = 0; row < model_.rows; ++row) {
        mid_.gains[row] *= controls.amount;
        if (has_side) side_.gains[row] *= controls.amount;
    }
    const FrameLayout& layout = filter_.layout();
    const std::int64_t start = frame * std::int64_t(layout.hop) - std::int64_t(layout.samples_before());
    const double gain_db = follower_.gain_db(controls.amount, shape_.is_whole());
    filter_.add_frame(mid_.history.read(start), side_.history.read(start), mid_.gains,
                      has_side ? side_.gains : mid_.gains, float(gain_db));
    emit(start);
    filter_.advance();
}

// Put out the samples that no later frame reaches, which begin with the frame.
void Stream::emit(std::int64_t start) {
    for (std::size_t i = 0; i < filter_.layout().hop; ++i) {
        const std::int64_t position = start + std::int64_t(i);
        if (position < 0) continue;
        const float mid = filter_.mid_change(i), side = filter_.side_change(i);
        const float change[most_channels] = {mid + side, mid - side};
        float wet[most_channels] = {}, peak = 0, original_peak = 0;
        for (std::size_t c = 0; c < channels_; ++c) {
            const float dry = *input_[c].read(position);
            wet[c] = dry + change[c];
            peak = std::max(peak, std::abs(wet[c]));
            original_peak = std::max(original_peak, std::abs(dry));
            delayed_[c].write(position, dry);
        }
        const float gain = limiter_.gain(peak, original_peak);
        for (std::size_t c = 0; c < channels_; ++c) output_[c].write(position, gain * wet[c]);
    }
}

}  // namespace tonewood
