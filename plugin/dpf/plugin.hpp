// The plug-in as DPF sees it.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <string>

#include "DistrhoPlugin.hpp"
#include "processor.hpp"

START_NAMESPACE_DISTRHO

// The order stays: hosts store parameters by index.
enum ParameterIndex : uint32_t {
    amount_index,
    low_index,
    high_index,
    smooth_index,
    mid_side_index,
    delta_index,
    freeze_index,
    bypass_index,
    model_index,
    parameter_count
};

constexpr float lowest_hz = 20, highest_hz = 20'000;  // limits at these ends do nothing
constexpr const char* model_key = "model-file";

class TonewoodPlugin : public Plugin {
public:
    TonewoodPlugin();

    const tonewood::Display& display() const { return processor_.display(); }
    // The models to choose from, and what to say about the file that was loaded last.
    std::vector<std::string> model_names() const;
    std::string file_message() const;

protected:
    const char* getLabel() const override { return "tonewood"; }
    const char* getDescription() const override { return "Moves recordings toward a learnt sound."; }
    const char* getMaker() const override { return "Tonewood"; }
    const char* getLicense() const override { return "Apache-2.0"; }
    uint32_t getVersion() const override { return d_version(0, 1, 0); }
    int64_t getUniqueId() const override { return d_cconst('T', 'w', 'd', '0' + TONEWOOD_CHANNELS); }

    void initAudioPort(bool input, uint32_t index, AudioPort& port) override;
    void initParameter(uint32_t index, Parameter& parameter) override;
    void initState(uint32_t index, State& state) override;
    float getParameterValue(uint32_t index) const override { return values_[index]; }
    void setParameterValue(uint32_t index, float value) override { values_[index] = value; }
    String getState(const char* key) const override;
    void setState(const char* key, const char* value) override;
    void activate() override;
    void sampleRateChanged(double rate) override;
    void run(const float** inputs, float** outputs, uint32_t frames) override;

private:
    tonewood::Parameters parameters() const;

    std::array<std::atomic<float>, parameter_count> values_{};
    std::vector<std::string> bundled_names_;
    tonewood::Processor processor_;
    mutable std::mutex file_mutex_;  // of the two below; the audio thread never takes it
    std::string file_path_, file_message_;
};

END_NAMESPACE_DISTRHO
