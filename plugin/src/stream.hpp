// Enhances a stream of audio with one model, as `tonewood.Stream` does; no allocation after construction.
#pragma once

#include <vector>

#include "analysis.hpp"
#include "loudness.hpp"
#include "network.hpp"
#include "overlap_filter.hpp"

namespace tonewood {

struct Controls {
    float amount = 1;               // of the mask, -1 to 2
    float low_hz = 0, high_hz = 0;  // limits of the mask; 0 for none
    float smooth_octaves = 0;
    bool mid_side = false;  // masks of their own for mid and side, instead of one for both channels
    bool freeze = false;    // keep the mask as it is
};

class Stream {
public:
    static constexpr std::size_t most_channels = 2;

    // The model must outlive the stream; `rate` must be at least that of the model.
    Stream(const Model& model, unsigned rate, std::size_t channels);
    void reset();
    std::size_t latency() const;  // samples
    // Enhance `count` samples of each channel. `dry` is the input with the same delay as the output.
    // Input and output may be the same memory. Values that are not audio count as silence.
    void process(const float* const* input, float* const* wet, float* const* dry, std::size_t count,
                 const Controls& controls);

    // Levels and gains in force [row] of the latest frame, dB.
    const Floats& levels() const { return levels_; }
    const Floats& gains() const { return mid_.gains; }

private:
    // Analysis of one signal: mid, which is the mono mix, or side.
    struct Chain {
        Chain(const Model& model, std::size_t capacity, double hop_seconds);
        History history;
        Network network;
        std::vector<Floats> rows;  // of the latest frames, the lookahead plus one
        Floats predicted, mask, gains;
    };

    std::int64_t samples_needed() const;
    void push(const float* const* input, std::size_t start, std::size_t count);
    void analyse(Chain& chain, const Controls& controls);
    void process_frame(const Controls& controls);
    void emit(std::int64_t frame);

    const Model& model_;
    const std::size_t channels_;
    Analysis analysis_;
    OverlapFilter filter_;
    MaskShape shape_;
    LoudnessFollower follower_;
    PeakLimiter limiter_;
    Chain mid_, side_;
    std::vector<History> input_, output_, delayed_;  // of each channel
    Floats levels_;
    std::int64_t pushed_, pulled_, analysed_;
    bool side_is_active_;
};

}  // namespace tonewood
