// Rows of the store as the messages that the command line reads, and what it selects them by. Used by the services
// only; steps and outcomes, which workers send as well, are in wire/.
#pragma once

#include "daemon/queue.h"
#include "db/run_store.h"
#include "proto/queue.pb.h"
#include "proto/run.pb.h"

namespace assay {

void fill(v1::Attempt& out, const AttemptRow& attempt, const AttemptSummary& summary);
// Everything but latest, attempts and config_toml.
void fill(v1::Run& out, const ListedRun& listed);
void fill(v1::Device& out, const DeviceListing& listed, bool connected);
void fill(v1::ChangeResponse& out, const ChangeAnswer& answer);

// Unknown words are errors that name them.
Result<Selection> to_selection(const v1::RunSelector& in);

}  // namespace assay
