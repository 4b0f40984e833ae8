// Who is next, and who must go? Pure decisions over the waiting requests of Admission.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "base/clock.h"
#include "qos/qos_class.h"

namespace sluice::qos {

// A request at one end of a class's queue.
struct QueueEnd {
  MonoTime since;       // waiting since
  uint64_t ticket = 0;  // order of arrival
};
using QueueEnds = std::array<std::optional<QueueEnd>, kQosClassCount>;  // by class; nullopt: nobody waits

// Inside a class: first come first served, or short work first, with ageing.
enum class QueueOrder { kFcfs, kShortestFirst };

// The size of work, as its power of two: requests of one size are served as they came. Zero for kFcfs.
uint8_t SizeOf(QueueOrder order, double work);

// Of two requests of a class, which goes first? The one that waited more for the square of its size, at equality the
// smaller one. So short work overtakes long work soon, and long work overtakes new short work in the end: nothing
// starves. Source: highest response ratio next (Brinch Hansen, 1971); on sizes, so that only the oldest of each has to
// be compared, and squared, because in a lasting overload short work would otherwise wait as long as long work does
// over the ratio of sizes (queue_simulation_test has the numbers).
bool GoesBefore(Duration waited, uint8_t size, Duration other_waited, uint8_t other_size);

// `c`, promoted by one class for each full `starvation_after` waited (zero: never promoted).
QosClass EffectiveClass(QosClass c, Duration waited, Duration starvation_after);

struct Next {
  QosClass qos_class = QosClass::kStandard;
  uint64_t ticket = 0;
  bool promoted = false;  // it runs before a request of a better class
};
// Who runs next: of the heads of the classes (who runs next in each) the one with the best effective class, then the
// earliest. The oldest of a class that is not its head runs before a head of *another* class that ranks behind it:
// waiting promotes over other classes; inside a class its own order holds. nullopt: nobody waits.
std::optional<Next> NextInLine(const QueueEnds& heads, const QueueEnds& oldest, MonoTime now,
                               Duration starvation_after);

// The class whose newest request gives way to `newcomer` when the queue is full: worst effective class, then shortest
// wait, and strictly less urgent than the newcomer. nullopt: nobody gives way.
std::optional<QosClass> VictimClass(const QueueEnds& newest, QosClass newcomer, MonoTime now,
                                    Duration starvation_after);

// When a place may be free again: the time that `limit` permits, each held for `hold`, take for everyone in the queue
// and one more. Within 100 ms and 30 s.
Duration EstimateRetryAfter(Duration hold, int queued, int limit);

}  // namespace sluice::qos
