// Positions of frames in a stream, and the latest samples of the stream.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "units.hpp"

namespace tonewood {

// Window, hop and transform length in samples. Frame k is centred on sample k * hop.
struct FrameLayout {
    std::size_t window, hop, fft;

    std::size_t samples_before() const { return fft / 2 - (fft - window) / 2; }
    std::size_t samples_after() const { return window - samples_before(); }
    // Number of samples of the stream that frame `index` needs; the first frame mirrors those that follow it.
    std::int64_t samples_needed(std::int64_t index) const {
        const std::size_t needed = index == 0 ? std::max(samples_after(), samples_before() + 1) : samples_after();
        return index * std::int64_t(hop) + std::int64_t(needed);
    }
};

// Periodic.
inline std::vector<double> hann_window(std::size_t length) {
    std::vector<double> window(length);
    for (std::size_t n = 0; n < length; ++n) window[n] = 0.5 - 0.5 * std::cos(2 * pi / double(length) * double(n));
    return window;
}

// Latest samples of one channel. Every sample is stored twice, a capacity apart, so that any run of at
// most a capacity is contiguous.
class History {
public:
    explicit History(std::size_t capacity) : capacity_(capacity), samples_(2 * capacity) {}

    void clear() { std::fill(samples_.begin(), samples_.end(), 0.0f); }
    void write(std::int64_t position, float value) {
        const std::size_t i = index(position);
        samples_[i] = samples_[i + capacity_] = value;
    }
    const float* read(std::int64_t position) const { return &samples_[index(position)]; }
    // Mirror the first samples of the stream in front of it.
    void mirror_start(std::size_t count) {
        for (std::int64_t i = 1; i <= std::int64_t(count); ++i) write(-i, *read(i));
    }

private:
    // Positions begin at most a capacity before the stream.
    std::size_t index(std::int64_t position) const {
        return std::size_t(position + std::int64_t(capacity_)) % capacity_;
    }

    std::size_t capacity_;
    std::vector<float> samples_;
};

}  // namespace tonewood
