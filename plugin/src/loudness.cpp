#include "loudness.hpp"

#include <algorithm>

#include "units.hpp"

namespace tonewood {
namespace {

constexpr double prior_seconds = 3.0;        // weight of the start value, as a duration
constexpr float ceiling = 0.891250938f;      // -1 dB
constexpr float release_db_per_second = 20;

// Return the value at an amount of the parabola through (0, 0) and two more points.
double parabola_at(double amount, const double* amounts, const double* values) {
    const double first = values[0] / amounts[0], second = values[1] / amounts[1];
    return amount * (first + (second - first) / (amounts[1] - amounts[0]) * (amount - amounts[0]));
}

}  // namespace

LoudnessFollower::LoudnessFollower(const Model& model, double hop_seconds)
    : model_(model), decay_(std::exp(-hop_seconds / model.level_seconds)), prior_frames_(prior_seconds / hop_seconds) {
    const double learnt[2] = {model.amounts[0], model.amounts[1]};
    const double learnt_db[2] = {model.loudness_db[0], model.loudness_db[1]};
    const double all[count] = {-1, learnt[0], learnt[1], 2};
    for (int i = 0; i < count; ++i) {
        amounts_[i] = all[i];
        start_db_[i] = parabola_at(all[i], learnt, learnt_db);
    }
    reset();
}

void LoudnessFollower::reset() {
    prior_weight_ = prior_frames_;
    peak_power_ = power_before_ = 0;
    for (double& value : power_after_) value = 0;
}

void LoudnessFollower::update(const float* rows_db, const float* mask_db) {
    for (double* value : {&power_before_, &peak_power_, &prior_weight_}) *value *= decay_;
    for (double& value : power_after_) value *= decay_;
    add(rows_db, mask_db);
}

void LoudnessFollower::add(const float* rows_db, const float* mask_db) {
    double frame_power = 0;
    for (std::size_t row = 0; row < model_.rows; ++row) {
        const double power = model_.loudness_weight[row] * power_of_db(rows_db[row]);
        frame_power += power;
        for (int i = 0; i < count; ++i) power_after_[i] += power * power_of_db(amounts_[i] * mask_db[row]);
    }
    power_before_ += frame_power;
    // The start value counts as frames that are as loud as the loudest recent one.
    peak_power_ = std::max(peak_power_, frame_power);
}

double LoudnessFollower::gain_db(double amount, bool is_whole) const {
    double prior_power = prior_weight_ * peak_power_;
    if (prior_power == 0) prior_power = 1;
    // The two estimated amounts between or beside which this one is; 0 dB at amount 0 is known.
    const int first = amount < 0 ? 0 : amount > 1 ? 2 : 1;
    double added_db[2];
    for (int i : {0, 1}) {
        const double start_power = is_whole ? power_of_db(start_db_[first + i]) : 1;
        const double after = power_after_[first + i] + prior_power * start_power;
        added_db[i] = 10 * std::log10(after / (power_before_ + prior_power));
    }
    return -parabola_at(amount, amounts_ + first, added_db);
}

PeakLimiter::PeakLimiter(unsigned rate) : release_db_(release_db_per_second / float(rate)) {}

float PeakLimiter::gain(float peak, float original_peak) {
    // What was above the ceiling before may stay as loud as it was.
    const float allowed = std::max(original_peak, ceiling);
    reduction_db_ = std::max(reduction_db_ - release_db_, 0.0f);
    if (peak > allowed) reduction_db_ = std::max(reduction_db_, 20 * std::log10(peak / allowed));
    return reduction_db_ > 0 ? std::pow(10.0f, -reduction_db_ / 20) : 1.0f;
}

}  // namespace tonewood
