// Assigns devices to waiting runs (daemon/scheduler.h decides) and turns that into leases.
//
// It looks when there is a reason to: most are read off the changes that are staged, so that no input can forget to
// ask. Invariant: a lease is sent only for an attempt that the store has numbered.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "daemon/fleet.h"
#include "daemon/group_commit.h"
#include "daemon/run_transitions.h"
#include "db/run_store.h"

namespace assay {

class Assigner {
 public:
  // All references must outlive it. `home`: where the folders of runs are.
  Assigner(RunStore& runs, const Clock& clock, const Fleet& fleet, RunTransitions& transitions, GroupCommit& commit,
           std::string home)
      : runs_(runs), clock_(clock), fleet_(fleet), transitions_(transitions), commit_(commit), home_(std::move(home)) {}

  // The hold of the whole queue: no run starts, those that run go on. Not stored here.
  void hold(bool held) { held_ = held; }
  bool held() const { return held_; }

  // Runs or devices have changed in the store already: a retry is due, runs were enqueued, a pause is over.
  void look() { due_ = true; }
  bool due() const { return due_; }

  struct Lease {
    Subject subject;
    ListedRun run;     // with config_toml
    ChangeList group;  // what the store is to make of it
  };
  // In a commit: what the staged changes and the store allow to start now. Nothing is staged.
  std::vector<Lease> assign();
  // The store has taken the group of the lease: the attempt is live, and its worker is sent it with the commit.
  Status start(Lease& lease, const AttemptRow& attempt);
  // What was staged shows in the store now.
  void committed() { due_ |= std::exchange(due_when_stored_, false); }

 private:
  void note(const Change& change);
  Result<std::vector<Assignment>> schedule_claims(const std::vector<WorkerSlots>& fleet);
  Result<Lease> lease(const Assignment& assignment);

  RunStore& runs_;
  const Clock& clock_;
  const Fleet& fleet_;
  RunTransitions& transitions_;
  GroupCommit& commit_;
  std::string home_;
  bool held_ = false;
  bool due_ = true;
  bool due_when_stored_ = false;  // some of what is staged shows only then
};

}  // namespace assay
