// What the edge benchmark measures, each in a process of its own so that its CPU time is its own: the real Sluice
// server on the synthetic backend, and the least that a gRPC server can do to stream the same messages.
#pragma once

namespace sluice::components {

// `kind`: "sluice" or "bare". `step_us`: microseconds between two tokens of a stream, "0": as fast as it goes. Prints
// its port, serves until standard input ends. The exit code of the process.
int Serve(const char* kind, const char* step_us);

}  // namespace sluice::components
