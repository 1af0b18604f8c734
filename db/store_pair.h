// queue.db and metrics.db of one home belong together: attempts.id of the one is attempt_id of the other. A backup that
// is put back, or a write-ahead log that is lost, makes one of them older than the other. Then ids that mean one
// attempt in metrics.db would be given out again to others.
#pragma once

#include "base/status.h"
#include "db/metric_store.h"
#include "db/run_store.h"

namespace assay {

// Call once, before anything is given out. If queue.db is behind metrics.db, its ids and epochs are moved past all that
// metrics.db knows. If metrics.db is behind, steps of ended attempts are missing, and nothing can be done about it
// here; live ones send them again. Either is said in the log and in the feed (store_restored, metrics_restored).
// Afterwards the two agree.
Status tie_stores(RunStore& runs, MetricStore& metrics);

}  // namespace assay
