// Exit codes of `assay`: a contract that scripts may rely on (docs/cli.md). Numbers are never reused.
#pragma once

#include "base/status.h"

namespace assay {

enum class ExitCode : int {
  ok = 0,
  negative = 1,     // the command worked and its answer is no: a run failed (wait), a check failed (doctor)
  usage = 2,        // the command line is wrong
  invalid = 3,      // the spec, a value or an input file is wrong
  not_found = 4,    // no such run, tag or file
  unavailable = 5,  // the daemon is not running or does not answer
  refused = 6,      // the state of the run or the queue does not allow it
  limits = 7,       // memory, disk or a documented limit
  internal = 8,     // a defect or damaged data
  permission = 9,   // not allowed to read or change this
  timed_out = 10,   // the time the user gave is over (wait --timeout)
};

inline ExitCode exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument:
      return ExitCode::invalid;
    case ErrorCode::not_found:
      return ExitCode::not_found;
    case ErrorCode::already_exists:
    case ErrorCode::failed_precondition:
    case ErrorCode::aborted:
      return ExitCode::refused;
    case ErrorCode::resource_exhausted:
      return ExitCode::limits;
    case ErrorCode::permission_denied:
      return ExitCode::permission;
    case ErrorCode::unavailable:
      return ExitCode::unavailable;
    case ErrorCode::data_loss:
    case ErrorCode::internal:
      return ExitCode::internal;
  }
  return ExitCode::internal;
}

// The name of the table in docs/cli.md, which JSON errors carry.
inline const char* kind_of(ExitCode code) {
  switch (code) {
    case ExitCode::ok:
      return "ok";
    case ExitCode::negative:
      return "negative";
    case ExitCode::usage:
      return "usage";
    case ExitCode::invalid:
      return "invalid";
    case ExitCode::not_found:
      return "not_found";
    case ExitCode::unavailable:
      return "unavailable";
    case ExitCode::refused:
      return "refused";
    case ExitCode::limits:
      return "limits";
    case ExitCode::internal:
      return "internal";
    case ExitCode::permission:
      return "permission";
    case ExitCode::timed_out:
      return "timed_out";
  }
  return "internal";
}

}  // namespace assay
