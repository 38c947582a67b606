// Shape of a mask, and its gains at the bins of a filter.
#pragma once

#include <vector>

#include "model_file.hpp"

namespace tonewood {

// Rounds and limits a mask as files store it, so that a stream and a file are filtered alike.
void quantize_mask(Floats& mask_db);

// Smoothing over frequency, then limits; the formulas are those of mask/components.py.
class MaskShape {
public:
    explicit MaskShape(const Model& model);
    // Widths in octaves at half height; limits in Hz, 0 for none.
    void set(float smooth_octaves, float low_hz, float high_hz);
    bool is_whole() const { return smooth_octaves_ == 0 && low_hz_ == 0 && high_hz_ == 0; }
    // Shape the gains [row] in dB in place.
    void apply(Floats& mask_db);

private:
    void set_smoothing(double width);
    void set_limits(double low_hz, double high_hz);

    std::vector<double> octaves_, widths_, scale_, next_scale_;
    float smooth_octaves_ = 0, low_hz_ = 0, high_hz_ = 0;
    Floats weights_;  // [shaped row, row]
    Floats shares_, input_;
};

// Interpolates gains of rows, linearly in mel; above the top they fade to 0 dB over an octave.
class RowInterpolation {
public:
    RowInterpolation(const Model& model, const std::vector<double>& hz);
    void gains(const Floats& rows_db, float* gains_db) const;

private:
    struct Weights {
        std::size_t row;
        float low, high;  // of this row and the next
    };
    std::vector<Weights> weights_;
};

}  // namespace tonewood
