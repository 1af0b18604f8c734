// Numbers, times and foreign text as people read them on a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace assay {

// Text from specs, logs and errors, made safe for one line of a terminal: control characters, bytes that are not UTF-8
// and characters that reorder text are shown as escapes ("\n", "\x1b", "\u202e").
std::string printable(std::string_view text);
// The same, first line only.
std::string first_line(std::string_view text);

// Columns the text takes on a terminal (UTF-8; wide characters take two).
int display_width(std::string_view text);
// At most `width` columns: the middle is replaced by "…", because run names differ at both ends.
std::string shorten(std::string_view text, int width);
// The same with the end replaced.
std::string shorten_end(std::string_view text, int width);
// Each of them shortened to `width`, all at the same place: where the fewest become alike, the middle if it does not
// matter.
std::vector<std::string> shorten_apart(std::vector<std::string> texts, int width);

std::string format_loss(double loss);        // 4 decimals; "nan" and "inf" as words
std::string format_rate(double per_second);  // integer; "-" if 0 or not finite
std::string format_bytes(double bytes);      // "512 B", "1.5 GiB"
std::string format_mib(double mib);          // "87.31 MiB", "22.69 GiB"; "-" if 0
std::string format_duration(int64_t ms);     // "0.4 s", "12 s", "2m 05s", "1h 03m", "2d 04h"
std::string format_count(double n);          // "950", "1.25M", "12.3B"
// `fraction` in [0, 1] as a bar of `width` columns in eighths of a block; ASCII if `ascii`.
std::string progress_bar(double fraction, int width, bool ascii = false);

}  // namespace assay
