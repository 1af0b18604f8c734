// Text that comes from users and goes into messages, names and protobuf strings.
#pragma once

#include <string>
#include <string_view>

namespace assay {

bool is_utf8(std::string_view text);

// The text on one line: control characters and bytes that are not UTF-8 escaped, cut after `longest` characters.
std::string printable(std::string_view text, int longest);

// "text" in double quotes for a message: control characters and bytes that are not UTF-8 escaped, cut after 64
// characters.
std::string in_quotes(std::string_view text);

}  // namespace assay
