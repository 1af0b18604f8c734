#include "worker/attempt/journal_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/file.h"

namespace assay {
namespace {

static_assert(std::endian::native == std::endian::little, "the journal stores numbers as this machine does");

constexpr std::string_view title = "assay journal ";
constexpr std::string_view first_line = "assay journal 2\n";
constexpr size_t crc_line_size = std::string_view("crc 0123abcd\n").size();
constexpr uint8_t marker = 1;  // begins a payload of version 1

template <class T>
T take(const char* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

uint32_t record_crc(std::string_view record) {
  return crc32(record.substr(8));
}

const char* type_of(const StepField& field) {
  return field.is_integer() ? "i64" : "f64";
}

std::string_view next_line(std::string_view& rest) {
  const size_t end = std::min(rest.find('\n'), rest.size());
  const std::string_view line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return line;
}

Error damaged_header(const std::string& path, std::string_view what) {
  return Error{ErrorCode::data_loss, fmt::format("journal {} is damaged at its beginning: {}", path, what)};
}
Error unreadable(const std::string& path, std::string_view what) {
  return Error{ErrorCode::failed_precondition,
               fmt::format("journal {} was written by another version of Assay: {}; use that version", path, what)};
}

std::string crc_line(std::string_view fields) {
  return fmt::format("crc {:08x}\n", crc32(fields));
}

}  // namespace

JournalLayout JournalLayout::first() {
  std::vector<Field> fields;
  for (const StepField& field : step_fields)
    if (field.since == 1) fields.push_back({std::string(field.name), &field});
  return JournalLayout(1, std::move(fields));
}

JournalLayout JournalLayout::newest() {
  std::vector<Field> fields;
  for (const StepField& field : step_fields) fields.push_back({std::string(field.name), &field});
  return JournalLayout(2, std::move(fields));
}

std::string JournalLayout::header() const {
  if (version_ == 1) return "";
  std::string fields;
  for (const Field& field : fields_) fields += fmt::format("{} {}\n", type_of(*field.known), field.name);
  fields.resize(limits::journal_header_bytes - first_line.size() - crc_line_size, '\n');
  return std::string(first_line) + crc_line(fields) + fields;
}

// A header is written at once, before any record: a file that ends within it, or with one that was not written whole
// before the power went, holds nothing. Anything else that is not as it should be is damage, and stays as it is.
Result<std::optional<JournalLayout>> JournalLayout::of_file(std::string_view begin, size_t file_size,
                                                            const std::string& path) {
  begin = begin.substr(0, limits::journal_header_bytes);
  const bool room_for_records = file_size > limits::journal_header_bytes;
  const JournalLayout one = first();
  std::string length;
  put(length, static_cast<uint32_t>(one.payload_size()));
  if (begin.size() >= length.size() && begin.substr(0, length.size()) == length) return std::optional(one);
  const bool nothing = begin.find_first_not_of('\0') == std::string_view::npos;
  const std::string_view prefix = begin.substr(0, first_line.size());
  if (!room_for_records && (nothing || prefix == length.substr(0, begin.size()))) return std::optional<JournalLayout>();
  if (prefix == first_line.substr(0, prefix.size())) {
    if (begin.size() < limits::journal_header_bytes) return std::optional<JournalLayout>();
    const std::string_view fields = begin.substr(first_line.size() + crc_line_size);
    if (begin.substr(first_line.size(), crc_line_size) == crc_line(fields)) {
      ASSAY_ASSIGN(JournalLayout layout, parse_header(fields, path));
      return std::optional(std::move(layout));
    }
    if (!room_for_records) return std::optional<JournalLayout>();
    return damaged_header(path, "the CRC-32 of its header does not match");
  }
  if (begin.substr(0, title.size()) == title)
    return unreadable(path, fmt::format("\"{}\" is none that this program knows", next_line(begin)));
  return damaged_header(path, "this is not how a journal begins");
}

Result<JournalLayout> JournalLayout::parse_header(std::string_view header, const std::string& path) {
  std::vector<Field> fields;
  while (true) {
    const std::string_view line = next_line(header);
    if (line.empty()) break;
    const size_t space = std::min(line.find(' '), line.size());
    const std::string name(line.substr(std::min(space + 1, line.size())));
    const StepField* known = find_step_field(name);
    if (known != nullptr && line.substr(0, space) != type_of(*known))
      return unreadable(path, fmt::format("its field {} is not a {}", name, type_of(*known)));
    if (std::any_of(fields.begin(), fields.end(), [&](const Field& other) { return other.name == name; }))
      return unreadable(path, fmt::format("it has field {} twice", name));
    fields.push_back({name, known});
  }
  JournalLayout layout(2, std::move(fields));
  for (const std::string& name : layout.absent_fields())
    if (find_step_field(name)->presence == Presence::always)
      return unreadable(path, fmt::format("it has no field {}", name));
  return layout;
}

std::vector<std::string> JournalLayout::unknown_fields() const {
  std::vector<std::string> names;
  for (const Field& field : fields_)
    if (field.known == nullptr) names.push_back(field.name);
  return names;
}

std::vector<std::string> JournalLayout::absent_fields() const {
  std::vector<std::string> names;
  for (const StepField& known : step_fields)
    if (std::none_of(fields_.begin(), fields_.end(), [&](const Field& field) { return field.known == &known; }))
      names.emplace_back(known.name);
  return names;
}

std::string JournalLayout::encode(int64_t seq, const StepMetrics& metrics) const {
  std::string sealed;  // what the CRC is of
  sealed.reserve(record_size());
  put(sealed, static_cast<uint64_t>(seq));
  if (version_ == 1) put(sealed, marker);
  for (const Field& field : fields_) field.known->visit(metrics, [&](auto value) { put(sealed, value); });
  std::string record;
  record.reserve(record_size());
  put(record, static_cast<uint32_t>(payload_size()));
  put(record, crc32(sealed));
  return record + sealed;
}

std::optional<std::string> JournalLayout::decode(const char* record, int64_t expected_seq, StepMetrics* out) const {
  const auto length = take<uint32_t>(record);
  const auto seq = take<uint64_t>(record + 8);
  if (length != payload_size())
    return fmt::format("payload length is {}, but records of this journal have {}", length, payload_size());
  if (take<uint32_t>(record + 4) != record_crc({record, record_size()})) return "the CRC-32 does not match";
  if (seq != static_cast<uint64_t>(expected_seq))
    return fmt::format("sequence number is {}, expected {}", seq, expected_seq);
  const char* at = record + journal_frame_bytes;
  if (version_ == 1 && take<uint8_t>(at) != marker)
    return fmt::format("payload version is {}, expected {}", take<uint8_t>(at), marker);
  at += marker_size();
  *out = StepMetrics{};
  for (const Field& field : fields_) {
    if (field.known != nullptr)
      field.known->visit(*out, [&](auto& value) { value = take<std::remove_reference_t<decltype(value)>>(at); });
    at += journal_value_bytes;
  }
  return std::nullopt;
}

}  // namespace assay
