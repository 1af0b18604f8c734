// The version of Assay, the same in every program.
#pragma once

namespace assay {

const char* version();  // "0.1.0"

}  // namespace assay
