#include "model_file.hpp"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

namespace tonewood {
namespace {

constexpr char magic[] = "TWPLUGIN";
constexpr std::uint32_t version = 1;
constexpr std::size_t header_bytes = 84, checked_from = 16, largest_file = 1'000'000;

std::uint32_t crc32(const std::uint8_t* bytes, std::size_t size) {
    std::uint32_t crc = ~0u;
    for (std::size_t i = 0; i < size; ++i) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0u);
    }
    return ~crc;
}

class Reader {
public:
    Reader(const std::uint8_t* bytes, std::size_t size) : next_(bytes), end_(bytes + size) {}

    std::uint32_t integer() {
        const std::uint8_t* b = take(4);
        return b[0] | b[1] << 8 | b[2] << 16 | std::uint32_t(b[3]) << 24;
    }

    float real() {
        const std::uint32_t bits = integer();
        float value;
        std::memcpy(&value, &bits, 4);
        if (!std::isfinite(value)) throw ModelFileError("the model file has infinite values: export it again");
        return value;
    }

    Floats reals(std::size_t count) {
        if (count > std::size_t(end_ - next_) / 4) throw truncated();
        Floats values(count);
        for (float& value : values) value = real();
        return values;
    }

    std::string text(std::size_t size) {
        const std::uint8_t* b = take(size);
        return std::string(b, b + size);
    }

    // Weights are stored as [output, input, tap].
    Layer layer(std::size_t outputs, std::size_t inputs, std::size_t taps) {
        const Floats stored = reals(outputs * inputs * taps);
        Layer result{Floats(stored.size()), reals(outputs)};
        for (std::size_t o = 0; o < outputs; ++o)
            for (std::size_t i = 0; i < inputs; ++i)
                for (std::size_t t = 0; t < taps; ++t)
                    result.weight[(t * inputs + i) * outputs + o] = stored[(o * inputs + i) * taps + t];
        return result;
    }

    bool is_at_end() const { return next_ == end_; }

    static ModelFileError truncated() {
        return ModelFileError("the model file is damaged (its length is wrong): export it again");
    }

private:
    const std::uint8_t* take(std::size_t size) {
        if (size > std::size_t(end_ - next_)) throw truncated();
        const std::uint8_t* begin = next_;
        next_ += size;
        return begin;
    }

    const std::uint8_t *next_, *end_;
};

void check_sizes(const Model& m) {
    const bool valid = m.rate >= 8000 && m.rate <= 48000 && m.hop >= 8 && m.hop <= m.window / 2 && m.fft >= m.window &&
                       m.fft <= 8192 && m.rows > 0 && m.rows <= m.bins() && m.width > 0 && m.width <= 1024 &&
                       m.kernel > 0 && m.kernel <= 65 && m.depth <= 8 && m.lookahead <= 100 && m.level_seconds > 0 &&
                       m.amounts[0] > 0 && m.amounts[1] > m.amounts[0];
    if (!valid) throw ModelFileError("the model file has sizes out of range: export it again");
}

}  // namespace

Model parse_model(const std::uint8_t* bytes, std::size_t size) {
    if (size < header_bytes || std::memcmp(bytes, magic, 8) != 0)
        throw ModelFileError("the file is not a Tonewood plug-in model: make one with tonewood export --plugin");
    Reader reader(bytes + 8, size - 8);
    if (const std::uint32_t stored = reader.integer(); stored != version)
        throw ModelFileError("the model file has format " + std::to_string(stored) + "; this plug-in reads " +
                             std::to_string(version) + ": update the plug-in or export the model again");
    if (reader.integer() != crc32(bytes + checked_from, size - checked_from))
        throw ModelFileError("the model file is damaged (its checksum is wrong): export it again");

    Model m{};
    for (unsigned* value : {&m.rate, &m.window, &m.hop, &m.fft, &m.rows, &m.width, &m.kernel, &m.depth, &m.lookahead})
        *value = reader.integer();
    const std::uint32_t name_bytes = reader.integer(), licence_bytes = reader.integer();
    for (float* value : {&m.floor_db, &m.level_seconds, &m.amounts[0], &m.amounts[1], &m.loudness_db[0],
                         &m.loudness_db[1]})
        *value = reader.real();
    check_sizes(m);
    m.row_hz = reader.reals(m.rows);
    m.filterbank = reader.reals(std::size_t(m.rows) * m.bins());
    m.loudness_weight = reader.reals(m.rows);
    m.row_mean = reader.reals(m.rows);
    m.static_db = reader.reals(m.rows);
    m.first = reader.layer(m.width, m.rows, 1);
    for (unsigned i = 0; i < m.depth; ++i) m.middle.push_back(reader.layer(m.width, m.width, m.kernel));
    m.last = reader.layer(m.rows, m.width, 1);
    m.name = reader.text(name_bytes);
    m.licence = reader.text(licence_bytes);
    if (!reader.is_at_end()) throw Reader::truncated();
    return m;
}

Model load_model(const std::string& path) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw ModelFileError(path + " cannot be read: check the path");
    if (file.tellg() < 0 || std::size_t(file.tellg()) > largest_file)
        throw ModelFileError(path + " is not a Tonewood plug-in model: one has less than 1 MB");
    file.seekg(0);
    const std::vector<char> content{std::istreambuf_iterator<char>(file), {}};
    return parse_model(reinterpret_cast<const std::uint8_t*>(content.data()), content.size());
}

}  // namespace tonewood
