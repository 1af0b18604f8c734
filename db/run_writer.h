// Tables runs and attempts of queue.db after a run was queued (db/experiment_tables.h, which also gives runs their
// experiment's priority): every change of a state is here, and writes its event. Paths are stored relative to the home.
// A part of RunStore.
#pragma once

#include <string>

#include "base/clock.h"
#include "base/status.h"
#include "db/changes.h"
#include "db/event_table.h"
#include "db/fleet_tables.h"
#include "db/sqlite.h"
#include "db/store_table.h"

namespace assay {

class RunWriter {
 public:
  RunWriter(Database& db, const Clock& clock, const std::string& home, StoreTable& store, EventTable& events,
            FleetTables& fleet)
      : db_(db), clock_(clock), home_(home), store_(store), events_(events), fleet_(fleet) {}

  Status apply(const RunChange& change);
  Result<AttemptRow> add(const NewAttempt& change);
  Status apply(const AttemptChange& change);

 private:
  Database& db_;
  const Clock& clock_;
  const std::string& home_;
  StoreTable& store_;
  EventTable& events_;
  FleetTables& fleet_;
};

}  // namespace assay
