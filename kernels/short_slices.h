// How soon a thread of the engine has a core when it wakes. Its threads hand work to one another dozens of
// times a step. Where others want the cores too, Linux (its scheduler since 6.6, EEVDF) lets whoever runs go
// on to the end of a slice, with a timer of 250 Hz for up to 4 ms, however nice it is: seen beside threads
// that tokenise texts of 4 MB, 5 to 10 % of steps of 3 ms took more than 10. A thread that asks for shorter
// slices goes first when it wakes, with the same share of the core (since 6.12): 1 to 2 %. Called by the
// engine's threads and those of CPU kernels.
#pragma once

namespace sessa {

// The calling thread asks for slices of 0.1 ms, the shortest that there are. Where Linux is older or a
// sandbox forbids it, or where the process was given another scheduling policy, nothing changes.
void AskForShortSlices();

}  // namespace sessa
