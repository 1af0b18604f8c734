// Rows of the store as protobuf messages and back. Used by the services only.
#pragma once

#include "daemon/queue.h"
#include "db/run_store.h"
#include "proto/queue.pb.h"
#include "proto/run.pb.h"

namespace assay {

void fill(v1::Attempt& out, const AttemptRow& attempt, const AttemptSummary& summary);
// Everything but latest, attempts and config_toml.
void fill(v1::Run& out, const ListedRun& listed);
void fill(v1::AttemptOutcome& out, const AttemptOutcome& outcome);
void fill(v1::Device& out, const DeviceListing& listed, bool connected);
void fill(v1::ChangeResponse& out, const ChangeAnswer& answer);

// Unknown words are errors that name them.
Result<AttemptOutcome> to_outcome(const v1::AttemptOutcome& in);
Result<Selection> to_selection(const v1::RunSelector& in);

}  // namespace assay
