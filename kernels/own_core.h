// A core for each thread that computes. A step is dozens of operations that all of them finish together, so
// two on one core cost what the slower half of the machine costs; and Linux does put them there: a thread
// that wakes stays where it slept when every core runs something, be it a thread nicer by ten. Traced on two
// cores, engine and worker shared one for 1.0 of 5 s with the other core idle, and for most steps beside
// texts of 4 MB that took more than twice the usual time. Called by the engine's threads and those of CPU
// kernels.
#pragma once

namespace sessa {

// The calling thread, which is the i-th of num_threads that compute together, runs on the i-th core that it
// may run on, if there are just so many. With more cores, or fewer, Linux chooses: another process's threads
// may have the others, or this one's take turns. Threads that it starts later are bound like it.
void AskForOwnCore(int i, int num_threads);

}  // namespace sessa
