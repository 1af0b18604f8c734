// Every field of every message, once: its name in the proto file, its place in the struct, and for text how long it may
// be. each_field(visitor, message) calls visitor(name, member) or visitor(name, member, Text). wire/convert.cpp derives
// both directions from it, the tests their random messages.
#pragma once

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "base/limits.h"
#include "wire/messages.h"

namespace assay {

// What is done to text that is longer than `most` bytes. Words for people are cut, where they tell least; a name or a
// path that is cut names something else, so it is refused.
struct Text {
  enum class Keep { start, end, whole } keep = Keep::whole;
  size_t most = 0;
  bool may_be_empty = true;
};
constexpr Text prose(size_t most) {
  return {Text::Keep::start, most};
}
constexpr Text tail(size_t most) {
  return {Text::Keep::end, most};
}
constexpr Text exact(size_t most) {
  return {Text::Keep::whole, most};
}
constexpr Text name_of(size_t most = limits::name_chars) {
  return {Text::Keep::whole, most, false};
}

// An M that may be const: each_field serves those who write fields and those who read them.
template <class T, class M>
concept Is = std::same_as<std::remove_const_t<T>, M>;

template <class V, Is<LeaseKey> M>
void each_field(V& v, M& m) {
  v("attempt_id", m.attempt_id);
  v("lease_epoch", m.epoch);
}
template <class V, Is<StoredSeq> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("seq", m.seq);
}

// --- worker to daemon ----------------------------------------------------------------------------------------------
template <class V, Is<DeviceInfo> M>
void each_field(V& v, M& m) {
  v("id", m.id, name_of());
  v("kind", m.kind);
  v("name", m.name, prose(limits::name_chars));
  v("memory_bytes", m.memory_bytes);
}
template <class V, Is<HeldLease> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("last_acked_seq", m.seq);
  v("attempt_key", m.attempt_key, exact(limits::name_chars));
}
// An entry of OccupiedDevices.
struct OccupiedDevice {
  std::string id, by;
};
template <class V, Is<OccupiedDevice> M>
void each_field(V& v, M& m) {
  v("device_id", m.id, name_of());
  v("by", m.by, prose(limits::name_chars));
}
template <class V, Is<Hello> M>
void each_field(V& v, M& m) {
  v("protocol", m.protocol);
  v("version", m.version, prose(limits::name_chars));
  v("worker_id", m.worker_id, name_of());
  v("host", m.host, exact(limits::name_chars));
  v("boot_id", m.boot_id, exact(limits::name_chars));
  v("pid", m.pid);
  v("start_ticks", m.start_ticks);
  v("devices", m.devices);
  v("occupied", m.occupied);
  v("leases", m.leases);
}
template <class V, Is<LeaseStatus> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("phase", m.phase);
  v("last_step", m.last_step);
}
template <class V, Is<Heartbeat> M>
void each_field(V& v, M& m) {
  v("leases", m.leases);
  v("occupied", m.occupied);
}
// But for the steps: wire/step_columns.h.
template <class V, Is<MetricBatch> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("first_seq", m.first_seq);
}
template <class V, Is<AttemptOutcome> M>
void each_field(V& v, M& m) {
  v("result", m.result);
  v("reason", m.reason);
  v("error", m.error, prose(limits::error_chars));
  v("operation", m.operation, prose(limits::name_chars));
  v("tensor", m.tensor, prose(limits::name_chars));
  v("step", m.step);
  v("exit_code", m.exit_code);
  v("signal", m.signal);
  v("peak_mem_mib", m.peak_mem_mib);
  v("log_tail", m.log_tail, tail(limits::log_tail_bytes));
}
template <class V, Is<AttemptEvent> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("kind", m.kind);
  v("outcome", m.outcome);
  v("log_path", m.log_path, exact(limits::path_chars));
  v("resumed_from_step", m.resumed_from_step);
  v("message", m.message, prose(limits::error_chars));
}
template <class V, Is<Problem> M>
void each_field(V& v, M& m) {
  v("message", m.message, prose(limits::error_chars));
}

// --- daemon to worker ----------------------------------------------------------------------------------------------
template <class V, Is<WelcomeMessage> M>
void each_field(V& v, M& m) {
  v("heartbeat_ms", m.heartbeat_ms);
  v("acks", m.stored);
  v("protocol", m.protocol);
  v("version", m.version, prose(limits::name_chars));
}
template <class V, Is<LeaseMessage> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("attempt", m.attempt);
  v("run", m.run, name_of());
  v("config_toml", m.config_toml, exact(limits::spec_bytes));
  v("folder", m.folder, name_of(limits::path_chars));
  v("run_folder", m.run_folder, name_of(limits::path_chars));
  v("timeout_s", m.timeout_s);
  v("device_ids", m.device_ids, name_of());
  v("attempt_key", m.attempt_key, name_of());
  v("earlier_keys", m.earlier_keys, exact(limits::name_chars));  // "" stands for attempts of before there were keys
}
template <class V, Is<MetricAckMessage> M>
void each_field(V& v, M& m) {
  each_field(v, m.stored);
}
template <class V, Is<StopMessage> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("reason", m.reason);
}
template <class V, Is<EventAckMessage> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
  v("kind", m.kind);
}
template <class V, Is<DrainMessage> M>
void each_field(V&, M&) {}
template <class V, Is<AbandonMessage> M>
void each_field(V& v, M& m) {
  each_field(v, m.lease);
}

}  // namespace assay
