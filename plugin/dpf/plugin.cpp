#include "plugin.hpp"

#include "bundled.hpp"

START_NAMESPACE_DISTRHO

namespace {

std::vector<tonewood::Model> bundled_models() {
    std::vector<tonewood::Model> models;
    for (const tonewood::BundledFile& file : tonewood::bundled_files)
        models.push_back(tonewood::parse_model(file.bytes, file.size));
    return models;
}

struct Description {
    const char *symbol, *name, *unit;
    float lowest, highest, initial;
    uint32_t hints;
};

constexpr uint32_t switch_hints = kParameterIsBoolean | kParameterIsInteger;
constexpr Description descriptions[parameter_count] = {
    {"amount", "Amount", "%", -100, 200, 100, 0},
    {"low", "Low limit", "Hz", lowest_hz, highest_hz, lowest_hz, kParameterIsLogarithmic},
    {"high", "High limit", "Hz", lowest_hz, highest_hz, highest_hz, kParameterIsLogarithmic},
    {"smoothing", "Smoothing", "octaves", 0, 4, 0, 0},
    {"mid_side", "Mid/side", "", 0, 1, 0, switch_hints},
    {"delta", "Delta", "", 0, 1, 0, switch_hints},
    {"freeze", "Freeze", "", 0, 1, 0, switch_hints},
    {"bypass", "Bypass", "", 0, 1, 0, switch_hints},
    {"model", "Model", "", 0, 1, 0, kParameterIsInteger},
};

}  // namespace

TonewoodPlugin::TonewoodPlugin()
    : Plugin(parameter_count, 0, 1), processor_(bundled_models(), TONEWOOD_CHANNELS) {
    for (const tonewood::Model& model : bundled_models()) bundled_names_.push_back(model.name);
    for (uint32_t i = 0; i < parameter_count; ++i) values_[i] = descriptions[i].initial;
    sampleRateChanged(getSampleRate());
}

std::vector<std::string> TonewoodPlugin::model_names() const {
    std::vector<std::string> names = bundled_names_;
    const std::lock_guard<std::mutex> lock(file_mutex_);
    names.push_back(file_path_.empty() ? "file" : file_path_.substr(file_path_.find_last_of("/\\") + 1));
    return names;
}

std::string TonewoodPlugin::file_message() const {
    const std::lock_guard<std::mutex> lock(file_mutex_);
    return file_message_;
}

void TonewoodPlugin::initAudioPort(bool input, uint32_t index, AudioPort& port) {
    port.groupId = TONEWOOD_CHANNELS == 1 ? kPortGroupMono : kPortGroupStereo;
    Plugin::initAudioPort(input, index, port);
}

void TonewoodPlugin::initParameter(uint32_t index, Parameter& parameter) {
    if (index == bypass_index) {
        parameter.initDesignation(kParameterDesignationBypass);
        return;
    }
    const Description& description = descriptions[index];
    parameter.symbol = description.symbol;
    parameter.name = description.name;
    parameter.unit = description.unit;
    parameter.hints = kParameterIsAutomatable | description.hints;
    parameter.ranges.min = description.lowest;
    parameter.ranges.max = description.highest;
    parameter.ranges.def = description.initial;
    if (index != model_index) return;
    const uint8_t count = uint8_t(bundled_names_.size() + 1);
    parameter.ranges.max = float(count - 1);
    auto* choices = new ParameterEnumerationValue[count];
    for (uint8_t i = 0; i < count; ++i) {
        choices[i].value = i;
        choices[i].label = i + 1 < count ? bundled_names_[i].c_str() : "file";
    }
    parameter.enumValues.count = count;
    parameter.enumValues.restrictedMode = true;
    parameter.enumValues.values = choices;
}

void TonewoodPlugin::initState(uint32_t, State& state) {
    state.hints = kStateIsFilenamePath;
    state.key = model_key;
    state.label = "Model file";
}

String TonewoodPlugin::getState(const char*) const {
    const std::lock_guard<std::mutex> lock(file_mutex_);
    return String(file_path_.c_str());
}

// A file that cannot be loaded leaves the model as it was. Its path stays in the state: it may only be missing here.
void TonewoodPlugin::setState(const char* key, const char* value) {
    if (std::strcmp(key, model_key) != 0) return;
    std::string message;
    try {
        if (*value) processor_.load(value);
    } catch (const std::exception& error) {
        message = error.what();
    }
    const std::lock_guard<std::mutex> lock(file_mutex_);
    file_path_ = value;
    file_message_ = message;
}

void TonewoodPlugin::activate() {
    processor_.reset();
    setLatency(uint32_t(processor_.latency()));
}

void TonewoodPlugin::sampleRateChanged(double rate) {
    processor_.prepare(rate);
    setLatency(uint32_t(processor_.latency()));
}

tonewood::Parameters TonewoodPlugin::parameters() const {
    tonewood::Parameters p;
    const auto is_on = [&](ParameterIndex index) { return values_[index] > 0.5f; };
    p.amount = values_[amount_index] / 100;
    p.low_hz = values_[low_index] > lowest_hz ? values_[low_index].load() : 0;
    p.high_hz = values_[high_index] < highest_hz ? values_[high_index].load() : 0;
    p.smooth_octaves = values_[smooth_index];
    p.mid_side = is_on(mid_side_index);
    p.delta = is_on(delta_index);
    p.freeze = is_on(freeze_index);
    p.bypass = is_on(bypass_index);
    p.model = unsigned(values_[model_index] + 0.5f);
    return p;
}

void TonewoodPlugin::run(const float** inputs, float** outputs, uint32_t frames) {
    processor_.process(inputs, outputs, frames, parameters());
    setLatency(uint32_t(processor_.latency()));
}

Plugin* createPlugin() { return new TonewoodPlugin; }

END_NAMESPACE_DISTRHO
