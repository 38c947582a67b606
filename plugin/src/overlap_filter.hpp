// Time-varying filter of mid and side, frame by frame, by overlap-add.
#pragma once

#include "fft.hpp"
#include "frames.hpp"
#include "mask_shape.hpp"

namespace tonewood {

// Only the change passes through the transform, so gains of 0 dB return the input bit by bit.
class OverlapFilter {
public:
    OverlapFilter(const Model& model, const FrameLayout& analysis, unsigned rate);
    void reset();
    const FrameLayout& layout() const { return layout_; }
    // Add the change of a frame, from samples [window] and gains [row] in dB of mid and side; `gain_db`
    // is added to all of them.
    void add_frame(const float* mid, const float* side, const Floats& mid_db, const Floats& side_db, float gain_db);
    // Changes of mid and side at the sample `offset` of the latest frame; no later frame may reach it.
    float mid_change(std::size_t offset) const { return mid_change_[offset] / weight(offset); }
    float side_change(std::size_t offset) const { return side_change_[offset] / weight(offset); }
    // Move on to the next frame.
    void advance();

private:
    void apply_gains(const Floats& mid_db, const Floats& side_db, float gain_db);
    float weight(std::size_t offset) const { return std::max(weight_[offset], 1e-12f); }

    FrameLayout layout_;
    Floats taper_, synthesis_taper_;
    Fft fft_;
    RowInterpolation interpolation_;
    Complexes spectrum_;  // of mid + i side
    Floats mid_gain_, side_gain_;
    Floats mid_change_, side_change_, weight_;
};

}  // namespace tonewood
