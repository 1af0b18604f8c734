#include "daemon/group_commit.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/log.h"

namespace assay {
namespace {

bool ends_an_attempt(const Change& change) {
  const auto* of_attempt = std::get_if<AttemptChange>(&change);
  return of_attempt && of_attempt->to == AttemptState::ended;
}

}  // namespace

void GroupCommit::stage(ChangeList group) {
  if (!group.empty()) groups_.push_back(std::move(group));
}

void GroupCommit::send(std::shared_ptr<WorkerLink> link, DaemonMessage message) {
  if (link) outbox_.emplace_back(std::move(link), std::move(message));
}

void GroupCommit::send_first(std::shared_ptr<WorkerLink> link, DaemonMessage message) {
  outbox_.insert(outbox_.begin(), {std::move(link), std::move(message)});
}

Error GroupCommit::fail(const Error& why) {
  failure_ = why;
  return why;
}

Result<std::vector<Result<Applied>>> GroupCommit::write(std::vector<ChangeList> leases) {
  std::vector<Result<Applied>> leased;
  const auto inputs = std::ssize(groups_);
  groups_.insert(groups_.end(), std::make_move_iterator(leases.begin()), std::make_move_iterator(leases.end()));
  if (groups_.empty()) return leased;
  const bool ends = std::any_of(groups_.begin(), groups_.end(), [](const ChangeList& group) {
    return std::any_of(group.begin(), group.end(), ends_an_attempt);
  });
  if (ends) ASSAY_TRY(metrics_.sync());
  ASSAY_ASSIGN(auto applied, runs_.apply_groups(groups_));
  written_ = true;  // the other groups are, even if one is refused
  const auto refused =
      std::find_if(applied.begin(), applied.begin() + inputs, [](const Result<Applied>& of) { return !of.ok(); });
  if (refused != applied.begin() + inputs) return refused->error();
  leased.assign(std::make_move_iterator(applied.begin() + inputs), std::make_move_iterator(applied.end()));
  return leased;
}

void GroupCommit::deliver() {
  const bool events = std::exchange(written_, false) && note_mark();
  groups_.clear();
  for (auto& [link, message] : outbox_) link->send(std::move(message));
  outbox_.clear();
  if (events && events_written_) events_written_();
}

void GroupCommit::drop() {
  groups_.clear();
  outbox_.clear();
  failure_.reset();
}

// Lets metrics.db know how far the queue has come; true: with new events. What the mark says is stored: if metrics.db
// cannot take the note, it takes no steps either.
bool GroupCommit::note_mark() {
  const auto mark = runs_.mark();
  if (const Status noted = mark.ok() ? metrics_.note(*mark) : Status(mark.error()); !noted.ok())
    log::error("how far the queue has come was not noted: {}", noted.error().message);
  if (!mark.ok()) return true;
  const auto events = mark->find("events");
  const int64_t last = events == mark->end() ? 0 : events->second;
  return std::exchange(last_event_id_, last) != last;
}

}  // namespace assay
