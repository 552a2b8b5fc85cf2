// How soon a thread has a core that another has. Linux (its scheduler since 6.6, EEVDF) lets whoever runs go
// on to the end of a slice, with a timer of 250 Hz for up to 4 ms, however nice it is, unless who wakes has a
// shorter slice, which a thread may ask for (since 6.12); its share of the core stays the same. Where
// streams' steps of 3 ms ran beside threads that tokenise texts of 4 MB, tokens waited for milliseconds
// behind a text, or, as front ends had longer slices than the engine, behind the next step. So who works for
// the shortest time goes first: front ends, then the engine and its kernels, then what may wait. Where Linux
// is older or a sandbox forbids it, or where the process was given another scheduling policy, nothing
// changes.
#pragma once

#include <chrono>

namespace sessa {

// Of front ends and all that has no other; Linux has no shorter ones.
inline constexpr std::chrono::microseconds kShortestSlice{100};
// Of the engine's threads and those of CPU kernels.
inline constexpr std::chrono::microseconds kEngineSlice{500};

// The calling thread asks for slices of this length, from 0.1 to 100 ms. Threads that it starts afterwards
// have them too.
void AskForSlices(std::chrono::microseconds length);

// The calling thread leaves the cores to others who want them: it is nicer by so much than it was (alone: so
// it is on Linux), with slices of 10 ms, so that all others go first. For what may wait a little: work on
// texts, and on memory that comes ahead of its use.
void BeNicer(int by);

}  // namespace sessa
