// Events on runs: the state machine (daemon/run_state.h) is asked, what follows is staged, and what runs have become
// is known here until the store says it too.
//
// Invariants: there is an entry for exactly the attempts that are live after what is staged, each watched by the
// LeaseManager; of a run without a live attempt the state is the store's unless changed() since the last commit. No
// change of a run or an attempt is staged by anybody else.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "daemon/fleet.h"
#include "daemon/group_commit.h"
#include "daemon/lease_manager.h"
#include "daemon/transition_rows.h"
#include "db/run_store.h"

namespace assay {

class RunTransitions {
 public:
  // All references must outlive it.
  RunTransitions(RunStore& runs, const Clock& clock, const Fleet& fleet, LeaseManager& leases, GroupCommit& commit)
      : runs_(runs), clock_(clock), fleet_(fleet), leases_(leases), commit_(commit) {}

  // --- what is known ---
  Subject subject_of(const ListedRun& listed) const;
  // The live attempt that the lease names, if this worker holds it under that epoch; null if not.
  const Subject* live(const LeaseKey& lease, const std::string& worker_id) const;
  const Subject* live(int64_t attempt_id) const;
  std::vector<Subject> all_live() const;
  std::set<std::string> busy_devices() const;
  bool changed(int64_t run_id) const { return changed_.contains(run_id); }

  // --- events ---
  // One event on one run: its changes are appended to `group`, and `subject` is what it becomes. An event that is not
  // legal is an error and changes nothing; after another error the commit fails (GroupCommit::failure).
  Status advance(Subject& subject, const RunEvent& event, ChangeList& group);
  // An event on a live attempt, as a group of its own. One that cannot be is logged.
  void advance_live(const Subject& subject, const RunEvent& event);
  // The events that lead from a waiting run to an attempt on the worker and devices of `subject`, as a group. Nothing
  // is staged: leased() makes it true once the store has taken the group.
  Result<ChangeList> lease(Subject& subject);
  // data_loss if the store has numbered the attempt otherwise than the state machine did.
  Status leased(Subject& subject, const AttemptRow& stored, int64_t timeout_s);

  // --- around the commit ---
  void take_over(const AttemptContext& context);  // a live attempt of an earlier life of the daemon
  void committed() { changed_.clear(); }
  void policy_changed(int64_t experiment_id) { policies_.erase(experiment_id); }
  void clear();

 private:
  Result<RunPolicy> policy_of(int64_t experiment_id);
  Result<Transition> apply_to(Subject& subject, RunEvent event, ChangeList& group);
  void keep(const Subject& subject, int64_t attempt_id);
  Status perform(const Subject& before, Subject& after, const std::vector<Action>& actions, ChangeList& group);
  Status cancel_others(const Subject& failed, bool only_cell, ChangeList& group);

  RunStore& runs_;
  const Clock& clock_;
  const Fleet& fleet_;
  LeaseManager& leases_;
  GroupCommit& commit_;
  std::map<int64_t, Subject> live_;        // by attempt id
  std::map<int64_t, RunLife> changed_;     // by run id, without live attempts: what the store does not say yet
  std::map<int64_t, RunPolicy> policies_;  // by experiment id, as far as asked for
};

}  // namespace assay
