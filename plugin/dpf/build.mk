# One plug-in of NAME and CHANNELS in all formats, by DPF's rules. `make plugin` calls it.

ENGINE := model_file fft analysis network mask_shape loudness overlap_filter stream processor
FILES_DSP := dpf/plugin.cpp $(ENGINE:%=src/%.cpp) bundled.cpp
FILES_UI := dpf/ui.cpp
UI_TYPE := opengl
VPATH := $(BUILD)

DPF_PATH := $(BUILD)/dpf
DPF_TARGET_DIR := $(BUILD)/bin
DPF_BUILD_DIR := $(BUILD)/$(NAME)
include $(DPF_PATH)/Makefile.plugins.mk

# DPF compiles as C++11 and optimises less; the later option counts.
BUILD_CXX_FLAGS += -std=c++17 -O3 -Idpf -Isrc -DTONEWOOD_CHANNELS=$(CHANNELS)

all: lv2 vst3 clap
