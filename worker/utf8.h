// Text that may hold any bytes (a log, an error message) made fit for a protobuf string.
#pragma once

#include <string>
#include <string_view>

namespace assay {

// Every byte that is not part of well-formed UTF-8 (Unicode 15, table 3-7) becomes '?': protobuf refuses a message with
// such a byte in a string field.
std::string to_utf8(std::string_view text);

}  // namespace assay
