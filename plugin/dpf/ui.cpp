// The plug-in's window: spectrum and gain in force, sliders, switches and the choice of model.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "DistrhoUI.hpp"
#include "plugin.hpp"

START_NAMESPACE_DISTRHO

namespace {

struct Box {
    float x, y, width, height;
    bool holds(double px, double py) const { return px >= x && px < x + width && py >= y && py < y + height; }
};

struct Slider {
    ParameterIndex index;
    const char *name, *format;
    float lowest, highest, initial;
    bool is_logarithmic;
    Box box;
};

struct Switch {
    ParameterIndex index;
    const char* name;
    Box box;
};

constexpr Box picture{16, 44, 608, 196};
constexpr Box model_box{110, 10, 200, 24}, file_box{320, 10, 70, 24};
constexpr float gain_range_db = 24, level_range_db = 100;  // half the picture's height, and all of it
constexpr Slider sliders[] = {
    {amount_index, "Amount", "%.0f %%", -100, 200, 100, false, {16, 262, 290, 30}},
    {smooth_index, "Smoothing", "%.2f octaves", 0, 4, 0, false, {334, 262, 290, 30}},
    {low_index, "Low limit", "%.0f Hz", lowest_hz, highest_hz, lowest_hz, true, {16, 314, 290, 30}},
    {high_index, "High limit", "%.0f Hz", lowest_hz, highest_hz, highest_hz, true, {334, 314, 290, 30}},
};
constexpr Switch switches[] = {
    {mid_side_index, "Mid/side", {16, 360, 143, 26}},
    {delta_index, "Delta", {171, 360, 143, 26}},
    {freeze_index, "Freeze", {326, 360, 143, 26}},
    {bypass_index, "Bypass", {481, 360, 143, 26}},
};

// Position of a frequency in the picture, logarithmic.
float x_of(float hz) {
    return picture.x + picture.width * std::log(std::max(hz, lowest_hz) / lowest_hz) / std::log(highest_hz / lowest_hz);
}

}  // namespace

class TonewoodUI : public UI {
public:
    TonewoodUI() : UI(DISTRHO_UI_DEFAULT_WIDTH, DISTRHO_UI_DEFAULT_HEIGHT, true) {
        loadSharedResources();
        for (const Slider& slider : sliders) values_[slider.index] = slider.initial;
    }

protected:
    void parameterChanged(uint32_t index, float value) override {
        if (index < parameter_count) values_[index] = value;
        repaint();
    }

    // A file was chosen; it is only heard as the model's last choice.
    void stateChanged(const char* key, const char* value) override {
        if (std::strcmp(key, model_key) == 0 && *value && is_choosing_) {
            is_choosing_ = false;
            set(model_index, float(plugin().model_names().size() - 1));
        }
        repaint();
    }

    void uiIdle() override { repaint(); }

    void onNanoDisplay() override {
        scale(float(getWidth()) / DISTRHO_UI_DEFAULT_WIDTH, float(getHeight()) / DISTRHO_UI_DEFAULT_HEIGHT);
        fill({0, 0, DISTRHO_UI_DEFAULT_WIDTH, DISTRHO_UI_DEFAULT_HEIGHT}, Color(30, 30, 34));
        label("Tonewood", 16, 28, 18, ALIGN_LEFT);
        draw_model();
        draw_picture();
        for (const Slider& slider : sliders) draw_slider(slider);
        for (const Switch& button : switches) draw_button(button.box, button.name, values_[button.index] > 0.5f);
    }

    bool onMouse(const MouseEvent& event) override {
        if (event.button != 1) return false;
        if (!event.press) {
            if (dragged_) editParameter(dragged_->index, false);
            dragged_ = nullptr;
            return true;
        }
        const double x = event.pos.getX() * unscale(), y = event.pos.getY() * unscale();
        for (const Slider& slider : sliders)
            if (slider.box.holds(x, y)) {
                dragged_ = &slider;
                editParameter(slider.index, true);
                // Holding Control resets the value.
                if (event.mod & kModifierControl) set(slider.index, slider.initial);
                else drag(x);
            }
        for (const Switch& button : switches)
            if (button.box.holds(x, y)) set_once(button.index, values_[button.index] > 0.5f ? 0.0f : 1.0f);
        if (model_box.holds(x, y)) {
            const auto count = plugin().model_names().size();
            set_once(model_index, float((std::size_t(values_[model_index] + 0.5f) + 1) % count));
        }
        if (file_box.holds(x, y)) is_choosing_ = requestStateFile(model_key);
        return true;
    }

    bool onMotion(const MotionEvent& event) override {
        if (!dragged_) return false;
        drag(event.pos.getX() * unscale());
        return true;
    }

private:
    TonewoodPlugin& plugin() const { return *static_cast<TonewoodPlugin*>(getPluginInstancePointer()); }
    double unscale() const { return double(DISTRHO_UI_DEFAULT_WIDTH) / getWidth(); }

    void set(ParameterIndex index, float value) {
        values_[index] = value;
        setParameterValue(index, value);
        repaint();
    }

    void set_once(ParameterIndex index, float value) {
        editParameter(index, true);
        set(index, value);
        editParameter(index, false);
    }

    void drag(double x) {
        const Slider& s = *dragged_;
        const float share = std::clamp((float(x) - s.box.x) / s.box.width, 0.0f, 1.0f);
        const float linear = s.lowest + share * (s.highest - s.lowest);
        set(s.index, s.is_logarithmic ? s.lowest * std::pow(s.highest / s.lowest, share) : linear);
    }

    void fill(const Box& box, const Color& color) {
        beginPath();
        rect(box.x, box.y, box.width, box.height);
        fillColor(color);
        NanoVG::fill();
    }

    void label(const char* words, float x, float y, float size, int align) {
        if (!*words) return;
        fontSize(size);
        fillColor(Color(220, 220, 220));
        textAlign(align | ALIGN_BASELINE);
        text(x, y, words, nullptr);
    }

    void draw_button(const Box& box, const char* name, bool is_on) {
        fill(box, is_on ? Color(190, 120, 40) : Color(55, 55, 60));
        label(name, box.x + box.width / 2, box.y + box.height / 2 + 5, 14, ALIGN_CENTER);
    }

    void draw_model() {
        const std::vector<std::string> names = plugin().model_names();
        const std::size_t chosen = std::min(std::size_t(values_[model_index] + 0.5f), names.size() - 1);
        draw_button(model_box, names[chosen].c_str(), false);
        draw_button(file_box, "Load…", false);
        label(plugin().file_message().c_str(), 400, 27, 11, ALIGN_LEFT);
    }

    void draw_slider(const Slider& s) {
        const float value = values_[s.index];
        const float share = s.is_logarithmic ? std::log(value / s.lowest) / std::log(s.highest / s.lowest)
                                             : (value - s.lowest) / (s.highest - s.lowest);
        fill({s.box.x, s.box.y + 18, s.box.width, 6}, Color(55, 55, 60));
        fill({s.box.x, s.box.y + 18, s.box.width * share, 6}, Color(190, 120, 40));
        char words[32];
        std::snprintf(words, sizeof words, s.format, double(value));
        label(s.name, s.box.x, s.box.y + 10, 14, ALIGN_LEFT);
        label(words, s.box.x + s.box.width, s.box.y + 10, 14, ALIGN_RIGHT);
    }

    void draw_picture() {
        fill(picture, Color(18, 18, 20));
        const float middle = picture.y + picture.height / 2;
        fill({picture.x, middle, picture.width, 1}, Color(60, 60, 66));
        for (float hz : {100.0f, 1'000.0f, 10'000.0f}) {
            fill({x_of(hz), picture.y, 1, picture.height}, Color(45, 45, 50));
            const char* name = hz < 1'000 ? "100 Hz" : hz < 10'000 ? "1 kHz" : "10 kHz";
            label(name, x_of(hz) + 3, picture.y + picture.height - 4, 11, ALIGN_LEFT);
        }
        const tonewood::Display& display = plugin().display();
        curve(display.levels_db, picture.y, level_range_db, Color(90, 110, 150));
        curve(display.gains_db, middle, 2 * gain_range_db, Color(240, 160, 60));
        label("+24 dB", picture.x + 4, picture.y + 12, 11, ALIGN_LEFT);
        label("-24 dB", picture.x + 4, picture.y + picture.height - 4, 11, ALIGN_LEFT);
        // What lies outside the limits is shaded.
        const float low = x_of(values_[low_index]), high = x_of(values_[high_index]);
        fill({picture.x, picture.y, low - picture.x, picture.height}, Color(0, 0, 0, 0.5f));
        fill({high, picture.y, picture.x + picture.width - high, picture.height}, Color(0, 0, 0, 0.5f));
    }

    // Values of rows in dB, 0 dB at `zero_y`.
    template <typename Values>
    void curve(const Values& values_db, float zero_y, float range_db, const Color& color) {
        const tonewood::Display& display = plugin().display();
        beginPath();
        for (std::size_t row = 0; row < display.rows; ++row) {
            const float x = x_of(display.hz[row]);
            const float above = values_db[row] * picture.height / range_db;
            const float y = std::clamp(zero_y - above, picture.y, picture.y + picture.height);
            if (row == 0) moveTo(x, y);
            else lineTo(x, y);
        }
        strokeColor(color);
        strokeWidth(2);
        stroke();
    }

    std::array<float, parameter_count> values_{};
    const Slider* dragged_ = nullptr;
    bool is_choosing_ = false;
};

UI* createUI() { return new TonewoodUI; }

END_NAMESPACE_DISTRHO
