#include "processor.hpp"

#include <algorithm>

#include "denormals.hpp"

namespace tonewood {
namespace {

constexpr double fade_seconds = 0.02, warm_up_seconds = 0.1;

float towards(float value, float target, float step) {
    return value < target ? std::min(value + step, target) : std::max(value - step, target);
}

}  // namespace

Processor::Processor(std::vector<Model> bundled, std::size_t channels)
    : bundled_(std::move(bundled)), channels_(channels) {}

Processor::~Processor() {
    delete incoming_.load();
    delete outgoing_.load();
}

void Processor::prepare(double rate) {
    const auto whole_rate = unsigned(rate + 0.5);
    for (std::atomic<Voice*>* pointer : {&incoming_, &outgoing_}) delete pointer->exchange(nullptr);
    current_ = next_ = nullptr;
    voices_.clear();
    file_voice_.reset();
    replaced_.reset();
    const auto make = [&](const Model& model) {
        return whole_rate >= model.rate ? std::make_unique<Voice>(model, whole_rate, channels_) : nullptr;
    };
    for (const Model& model : bundled_) voices_.push_back(make(model));
    if (file_model_) file_voice_ = make(*file_model_);
    rate_ = whole_rate;
    fade_step_ = float(1 / (fade_seconds * rate));
    const Voice* first = chosen(0);
    latency_ = first ? first->stream.latency() : 0;
}

void Processor::reset() {
    if (next_) finish_change();
    for (const auto& voice : voices_)
        if (voice) voice->stream.reset();
    if (file_voice_) file_voice_->stream.reset();
}

void Processor::load(const std::string& path) {
    auto model = std::make_unique<Model>(load_model(path));
    delete outgoing_.exchange(nullptr);
    if (const unsigned rate = rate_; rate >= model->rate)
        delete incoming_.exchange(new Voice(*model, rate, channels_));
    file_model_ = std::move(model);
}

// Take over a loaded file, unless the one before is still heard or not yet collected.
void Processor::accept_file() {
    if (next_ || replaced_ || outgoing_.load() || !incoming_.load()) return;
    replaced_ = std::move(file_voice_);
    file_voice_.reset(incoming_.exchange(nullptr));
    if (replaced_.get() != current_) outgoing_ = replaced_.release();
}

Processor::Voice* Processor::chosen(unsigned model) const {
    if (model >= voices_.size() && file_voice_) return file_voice_.get();
    return voices_.empty() ? file_voice_.get() : voices_[model < voices_.size() ? model : 0].get();
}

void Processor::begin_change(Voice* voice) {
    next_ = voice;
    next_->stream.reset();
    fade_ = 0;
    warm_up_ = next_->stream.latency() + std::size_t(warm_up_seconds * rate_);
}

void Processor::finish_change() {
    current_ = next_;
    next_ = nullptr;
    if (replaced_) outgoing_ = replaced_.release();
    latency_ = current_->stream.latency();
}

void Processor::process(const float* const* input, float* const* output, std::size_t count,
                        const Parameters& parameters) {
    const FlushDenormals flush;
    accept_file();
    Voice* voice = chosen(parameters.model);
    if (!current_ && voice) {
        next_ = voice;
        finish_change();
    }
    if (!current_) {  // no model works at this rate: pass the sound through
        for (std::size_t c = 0; c < channels_; ++c) std::copy(input[c], input[c] + count, output[c]);
        return;
    }
    if (!next_ && voice != current_) begin_change(voice);
    for (std::size_t start = 0; start < count; start += part_size) {
        const float* in[Stream::most_channels];
        float* out[Stream::most_channels];
        for (std::size_t c = 0; c < channels_; ++c) {
            in[c] = input[c] + start;
            out[c] = output[c] + start;
        }
        process_part(in, out, std::min(part_size, count - start), parameters);
    }
    update_display();
}

void Processor::process_part(const float* const* input, float* const* output, std::size_t count,
                             const Parameters& parameters) {
    run_voice(*current_, input, count, parameters, part_);
    if (next_) {
        run_voice(*next_, input, count, parameters, next_part_);
        mix_change(count);
    }
    const float wet_target = parameters.bypass ? 0.0f : 1.0f;
    const float dry_target = parameters.bypass ? 1.0f : parameters.delta ? -1.0f : 0.0f;
    for (std::size_t i = 0; i < count; ++i) {
        wet_share_ = towards(wet_share_, wet_target, fade_step_);
        dry_share_ = towards(dry_share_, dry_target, fade_step_);
        for (std::size_t c = 0; c < channels_; ++c)
            output[c][i] = wet_share_ * part_.wet[c][i] + dry_share_ * part_.dry[c][i];
    }
}

void Processor::run_voice(Voice& voice, const float* const* input, std::size_t count, const Controls& controls,
                          Part& part) {
    float *wet[Stream::most_channels], *dry[Stream::most_channels];
    for (std::size_t c = 0; c < channels_; ++c) {
        wet[c] = part.wet[c];
        dry[c] = part.dry[c];
    }
    voice.stream.process(input, wet, dry, count, controls);
}

void Processor::update_display() {
    const Model& model = current_->model;
    const std::size_t rows = std::min<std::size_t>(model.rows, Display::most_rows);
    for (std::size_t row = 0; row < rows; ++row) {
        display_.hz[row].store(model.row_hz[row], std::memory_order_relaxed);
        display_.levels_db[row].store(current_->stream.levels()[row], std::memory_order_relaxed);
        display_.gains_db[row].store(current_->stream.gains()[row], std::memory_order_relaxed);
    }
    display_.rows.store(rows, std::memory_order_relaxed);
}

// Cross-fade from the current voice to the next, once that has settled.
void Processor::mix_change(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
        if (warm_up_ > 0)
            --warm_up_;
        else
            fade_ = towards(fade_, 1, fade_step_);
        for (std::size_t c = 0; c < channels_; ++c) {
            part_.wet[c][i] += fade_ * (next_part_.wet[c][i] - part_.wet[c][i]);
            part_.dry[c][i] += fade_ * (next_part_.dry[c][i] - part_.dry[c][i]);
        }
    }
    if (fade_ == 1) finish_change();
}

}  // namespace tonewood
