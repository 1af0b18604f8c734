// Messages of proto/worker.proto as the structs of wire/messages.h, and back: the only place that does it.
//
// To protobuf: text is made UTF-8 (base/utf8.h) and cut to its limit (wire/fields.h). Nothing can go wrong.
// From protobuf: what is not as it should be is an error that names the field ("hello.devices[1].kind: ..."): a word
// nobody knows, a name that is missing or too long, an end without a result. Prose that is too long is cut. What the
// receiver does with an error: the daemon ends the session with it; the worker logs it, sends it back as a Problem, and
// refuses the lease if it was one; both leave everything else as it was.
#pragma once

#include "base/status.h"
#include "proto/worker.pb.h"
#include "wire/messages.h"

namespace assay {

v1::WorkerMessage to_proto(const WorkerMessage& message);
v1::DaemonMessage to_proto(const DaemonMessage& message);

// Errors: invalid_argument; failed_precondition if a Hello or Welcome is of another protocol, of which nothing more is
// read.
Result<WorkerMessage> from_proto(const v1::WorkerMessage& message);
Result<DaemonMessage> from_proto(const v1::DaemonMessage& message);

// Also what the command line is told of an attempt's end.
void fill(v1::AttemptOutcome& out, const AttemptOutcome& outcome);
Result<AttemptOutcome> from_proto(const v1::AttemptOutcome& in);

}  // namespace assay
