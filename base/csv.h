// Fields of RFC 4180 files.
#pragma once

#include <string>
#include <string_view>

namespace assay {

// The text as one field: quoted where it holds a comma, a quote or a line break.
std::string csv_field(std::string_view text);
// The shortest text that reads back as the same double; "nan", "inf", "-inf".
std::string csv_number(double value);

}  // namespace assay
