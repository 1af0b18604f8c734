// How fields of wire/fields.h get into protobuf messages and out of them, by name. For wire/convert.cpp.
#pragma once

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include "base/status.h"
#include "base/utf8.h"
#include "wire/fields.h"

namespace assay::wire {

namespace pb = google::protobuf;

// A name in each_field that the proto file lacks, or has with another type, ends the program: the first test finds it.
inline const pb::FieldDescriptor* field_of(const pb::Message& message, const char* name) {
  return message.GetDescriptor()->FindFieldByName(name);
}

inline std::string_view fitted(std::string_view text, const Text& as) {
  switch (as.keep) {
    case Text::Keep::start:
      return cut_end(text, as.most);
    case Text::Keep::end:
      return cut_start(text, as.most);
    case Text::Keep::whole:
      break;
  }
  return text;
}

// --- to protobuf -----------------------------------------------------------------------------------------------------

struct Writer {
  pb::Message& out;

  template <class T>
  static void write(pb::Message& out, const T& value) {
    Writer writer{out};
    each_field(writer, value);
  }

  void operator()(const char* name, const int64_t& value) { out.GetReflection()->SetInt64(&out, at(name), value); }
  void operator()(const char* name, const int& value) { out.GetReflection()->SetInt32(&out, at(name), value); }
  void operator()(const char* name, const double& value) { out.GetReflection()->SetDouble(&out, at(name), value); }
  template <WordEnum E>
  void operator()(const char* name, const E& value) {
    out.GetReflection()->SetString(&out, at(name), std::string(to_string(value)));
  }
  void operator()(const char* name, const std::string& value, const Text& as) {
    out.GetReflection()->SetString(&out, at(name), std::string(fitted(to_utf8(value), as)));
  }
  void operator()(const char* name, const std::vector<std::string>& values, const Text& as) {
    for (const std::string& value : values)
      out.GetReflection()->AddString(&out, at(name), std::string(fitted(to_utf8(value), as)));
  }
  template <class T>
  void operator()(const char* name, const std::optional<T>& value) {
    if (value) write(*out.GetReflection()->MutableMessage(&out, at(name)), *value);
  }
  template <class T>
  void operator()(const char* name, const std::vector<T>& values) {
    for (const T& value : values) write(*out.GetReflection()->AddMessage(&out, at(name)), value);
  }
  void operator()(const char* name, const OccupiedDevices& devices) {
    for (const auto& [id, by] : devices)
      write(*out.GetReflection()->AddMessage(&out, at(name)), OccupiedDevice{id, by});
  }

  const pb::FieldDescriptor* at(const char* name) const { return field_of(out, name); }
};

// --- from protobuf ---------------------------------------------------------------------------------------------------

inline Error wrong(std::string_view what, std::string_view why) {
  return Error{ErrorCode::invalid_argument, fmt::format("{}: {}", what, why)};
}

// The first thing that is wrong stays in `status`.
struct Reader {
  const pb::Message& in;
  std::string path;  // "hello.devices[1]"
  Status status = {};

  template <class T>
  static Status read(const pb::Message& in, std::string path, T& value) {
    Reader reader{in, std::move(path)};
    each_field(reader, value);
    return reader.status;
  }

  void operator()(const char* name, int64_t& value) { value = in.GetReflection()->GetInt64(in, at(name)); }
  void operator()(const char* name, int& value) { value = in.GetReflection()->GetInt32(in, at(name)); }
  void operator()(const char* name, double& value) { value = in.GetReflection()->GetDouble(in, at(name)); }
  template <WordEnum E>
  void operator()(const char* name, E& value) {
    const auto word = parse_word<E>(in.GetReflection()->GetString(in, at(name)));
    if (word.ok())
      value = *word;
    else
      note(wrong(name_of_field(name), word.error().message));
  }
  void operator()(const char* name, std::string& value, const Text& as) {
    value = text(name_of_field(name), in.GetReflection()->GetString(in, at(name)), as);
  }
  void operator()(const char* name, std::vector<std::string>& values, const Text& as) {
    for (int i = 0; i < in.GetReflection()->FieldSize(in, at(name)); ++i)
      values.push_back(text(name_of_element(name, i), in.GetReflection()->GetRepeatedString(in, at(name), i), as));
  }
  template <class T>
  void operator()(const char* name, std::optional<T>& value) {
    if (!in.GetReflection()->HasField(in, at(name))) return;
    note(read(in.GetReflection()->GetMessage(in, at(name)), name_of_field(name), value.emplace()));
  }
  template <class T>
  void operator()(const char* name, std::vector<T>& values) {
    for (int i = 0; i < in.GetReflection()->FieldSize(in, at(name)); ++i)
      note(read(in.GetReflection()->GetRepeatedMessage(in, at(name), i), name_of_element(name, i),
                values.emplace_back()));
  }
  void operator()(const char* name, OccupiedDevices& devices) {
    std::vector<OccupiedDevice> list;
    (*this)(name, list);
    for (OccupiedDevice& device : list) devices[device.id] = std::move(device.by);
  }

  std::string text(const std::string& field, const std::string& value, const Text& as) {
    if (value.empty() && !as.may_be_empty) note(wrong(field, "is missing"));
    if (as.keep == Text::Keep::whole && value.size() > as.most)
      note(wrong(field, fmt::format("has {} bytes; {} at most", value.size(), as.most)));
    return std::string(fitted(value, as));
  }
  void note(Status problem) {
    if (status.ok()) status = std::move(problem);
  }
  const pb::FieldDescriptor* at(const char* name) const { return field_of(in, name); }
  std::string name_of_field(const char* name) const { return path.empty() ? name : path + "." + name; }
  std::string name_of_element(const char* name, int i) const { return fmt::format("{}[{}]", name_of_field(name), i); }
};

}  // namespace assay::wire
