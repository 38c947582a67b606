// Levels of a frame in the rows of a mask.
#pragma once

#include <memory>

#include "fft.hpp"
#include "frames.hpp"
#include "model_file.hpp"

namespace tonewood {

class Analysis {
public:
    // A rate above that of the analysis has windows of the same duration, so its lowest bins have the
    // frequencies of the analysis and nothing is resampled.
    Analysis(const Model& model, unsigned rate);
    const FrameLayout& layout() const { return layout_; }
    // Levels [row] in dB re full scale of the samples [window] of a frame.
    void rows(const float* samples, float* rows_db);

private:
    struct Band {
        std::size_t first, count;  // bins of non-zero weight
    };
    const Model& model_;
    FrameLayout layout_;
    Floats taper_, windowed_, power_;
    std::vector<Band> bands_;
    RealBins transform_;
    float floor_power_;
};

}  // namespace tonewood
