// Reads and checks a spec file before anything is sent: shared by plan and enqueue.
#pragma once

#include <google/protobuf/repeated_field.h>

#include <string>

#include "base/status.h"
#include "cli/output.h"
#include "spec/experiment_spec.h"

namespace assay {

struct SpecFile {
  std::string path;  // as the user wrote it, for messages
  std::string text;
  std::string base_folder;  // relative data paths in the spec start here: the working folder
  ExperimentSpec spec;
};

// `path` "-" reads standard input. A spec with errors is invalid_argument; its message has one error a line, each as
// file:line:col.
Result<SpecFile> read_spec_file(const std::string& path);

// What plan and enqueue say alike.
Json to_json(const google::protobuf::RepeatedPtrField<std::string>& texts);
// On standard error, a line each.
void print_warnings(Context& context, const google::protobuf::RepeatedPtrField<std::string>& warnings);

}  // namespace assay
