// Control of loudness and peak without lookahead.
#pragma once

#include <vector>

#include "model_file.hpp"

namespace tonewood {

// Running estimate of the loudness that masks add; it follows the masks, not the music's loudness.
class LoudnessFollower {
public:
    LoudnessFollower(const Model& model, double hop_seconds);
    void reset();
    // Add one frame: its levels [row], and its mask [row] at amount 1, dB.
    void update(const float* rows_db, const float* mask_db);
    // Add the same frame of another signal.
    void add(const float* rows_db, const float* mask_db);
    // Gain in dB that compensates masks at an amount; 0 for amount 0. The learnt start is that of whole
    // masks; of shaped ones nothing is known.
    double gain_db(double amount, bool is_whole) const;

private:
    const Model& model_;
    double decay_, prior_frames_;
    // Amounts that are followed: -1, the two of the model, and 2.
    static constexpr int count = 4;
    double amounts_[count];
    double start_db_[count];
    double prior_weight_, peak_power_, power_before_, power_after_[count];
};

// Limiter with instant attack and slow release; the gain is the same for all channels.
class PeakLimiter {
public:
    explicit PeakLimiter(unsigned rate);
    void reset() { reduction_db_ = 0; }
    // Return the gain for the next sample, from its peak over channels after and before processing.
    float gain(float peak, float original_peak);

private:
    float release_db_, reduction_db_ = 0;
};

}  // namespace tonewood
