// Causal network that predicts a mask from levels, frame by frame.
#pragma once

#include "model_file.hpp"

namespace tonewood {

class Network {
public:
    // hop_seconds: from frame to frame, at the model's rate.
    Network(const Model& model, double hop_seconds);
    void reset();
    // Predict the mask [row] in dB that belongs to the frame `lookahead` frames ago.
    void predict(const float* rows_db, float* mask_db);

private:
    // Past inputs of a dilated convolution, as a ring [frame, channel].
    struct Past {
        std::size_t frames, next;
        Floats inputs;
    };
    float relative_levels(const float* rows_db);
    void convolve(const Layer& layer, std::size_t dilation, Past& past);

    const Model& model_;
    double decay_;
    double squares_ = 0, powers_ = 0;  // leaky sums of squared power and of power
    std::vector<Past> past_;
    Floats relative_, hidden_, sums_;
};

}  // namespace tonewood
