// Who is next, and who must go? Pure decisions over the waiting requests of Admission.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "qos/qos_class.h"

namespace sluice::qos {

// One end of a class's queue. Inside a class requests are served in order of arrival, so its oldest request is its most
// urgent one and its newest the least urgent: the ends are all that a decision needs.
struct QueueEnd {
  MonoTime since;       // waiting since
  uint64_t ticket = 0;  // order of arrival
};
using QueueEnds = std::array<std::optional<QueueEnd>, kQosClassCount>;  // by class; nullopt: nobody waits

// `c`, promoted by one class for each full `starvation_after` waited (zero: never promoted).
QosClass EffectiveClass(QosClass c, Duration waited, Duration starvation_after);

// The class whose oldest request runs next: best effective class, then longest wait. nullopt: nobody waits.
std::optional<QosClass> NextClass(const QueueEnds& oldest, MonoTime now, Duration starvation_after);

// The class whose newest request gives way to `newcomer` when the queue is full: worst effective class, then shortest
// wait, and strictly less urgent than the newcomer. nullopt: nobody gives way.
std::optional<QosClass> VictimClass(const QueueEnds& newest, QosClass newcomer, MonoTime now,
                                    Duration starvation_after);

// When a place may be free again: the time that `limit` permits, each held for `hold`, take for everyone in the queue
// and one more. Within 100 ms and 30 s.
Duration EstimateRetryAfter(Duration hold, int queued, int limit);

}  // namespace sluice::qos
