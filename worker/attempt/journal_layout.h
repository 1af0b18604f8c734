// How a journal lies in its file: the fields that its records hold, in which order, and where records begin. A journal
// says so itself, so that it can be read by programs whose list of fields (spec/step_metrics.h) is another.
//
// Version 2: a header of limits::journal_header_bytes, then records of equal size. The header is text: "assay journal
// 2", "crc 0123abcd" (CRC-32 of all after this line), a line "i64 NAME" or "f64 NAME" for each field, and line breaks
// to its end. Record: u32 payload length, u32 CRC-32 of (sequence, payload), u64 sequence (from 1, consecutive),
// payload: 8 bytes for each field. Little endian.
//
// Version 1 had no header: the payload is a byte 1, then the fields of spec/step_metrics.h that are there since 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "spec/step_metrics.h"

namespace assay {

inline constexpr size_t journal_value_bytes = 8;
inline constexpr size_t journal_frame_bytes = 4 + 4 + 8;
// Of the records that this program writes into a journal of its own.
inline constexpr size_t journal_record_size = journal_frame_bytes + journal_value_bytes * std::size(step_fields);
static_assert(journal_record_size <= limits::journal_record_bytes);

class JournalLayout {
 public:
  static JournalLayout newest();
  // From the first bytes of a file of `file_size` bytes, at least as many as a header has if the file has them.
  // Nothing: no record can have been stored yet; whoever writes begins anew. data_loss: the header is damaged.
  // failed_precondition: a newer program wrote what this one cannot read. Messages name `path`.
  static Result<std::optional<JournalLayout>> of_file(std::string_view begin, size_t file_size,
                                                      const std::string& path);

  // What is ahead of the first record; empty for version 1.
  std::string header() const;
  size_t header_size() const { return version_ == 1 ? 0 : limits::journal_header_bytes; }
  size_t payload_size() const { return marker_size() + journal_value_bytes * fields_.size(); }
  size_t record_size() const { return journal_frame_bytes + payload_size(); }
  size_t offset(int64_t records) const { return header_size() + static_cast<size_t>(records) * record_size(); }

  // Fields of the file that this program does not know, and the other way round.
  std::vector<std::string> unknown_fields() const;
  std::vector<std::string> absent_fields() const;

  // Layouts with unknown fields cannot be written: what would they hold?
  std::string encode(int64_t seq, const StepMetrics& metrics) const;
  // Fills `out` from the record_size() bytes at `record`, or says what is wrong with them. What the file does not have
  // is not_recorded.
  std::optional<std::string> decode(const char* record, int64_t expected_seq, StepMetrics* out) const;

 private:
  struct Field {
    std::string name;
    const StepField* known = nullptr;  // null: a newer program's
  };
  JournalLayout(int version, std::vector<Field> fields) : version_(version), fields_(std::move(fields)) {}
  static JournalLayout first();
  static Result<JournalLayout> parse_header(std::string_view header, const std::string& path);
  size_t marker_size() const { return version_ == 1 ? 1 : 0; }

  int version_;
  std::vector<Field> fields_;
};

}  // namespace assay
