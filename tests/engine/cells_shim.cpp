// tdbench/engine/cells.cu on a CPU: a thread for each thread of a block, one block after another.
#include <barrier>
#include <cmath>
#include <thread>
#include <vector>

#define KERNEL static void
#define DEVICE inline
#define SHARED static  // one block at a time
#define BARRIER() gate->arrive_and_wait()
#define THREAD thread_in_block
#define THREADS threads_of_block
#define BLOCK block_in_grid
#define UNROLL

static thread_local int thread_in_block;
static int threads_of_block, block_in_grid;
static std::barrier<>* gate;

using std::fmaf;
using std::sqrt;

#if !defined(CELLS)
#define CELLS "../../tdbench/engine/cells.cu"
#endif
#include CELLS

// Like cuLaunchKernel with these blocks and threads.
extern "C" void cells_launch(int blocks, int threads, void** parameters) {
    const Work work = *static_cast<const Work*>(parameters[0]);
    threads_of_block = threads;
    for (block_in_grid = 0; block_in_grid < blocks; block_in_grid++) {
        std::barrier<> barrier(threads);
        gate = &barrier;
        std::vector<std::thread> all;
        for (int t = 0; t < threads; t++)
            all.emplace_back([=] {
                thread_in_block = t;
                train_cells(work);
            });
        for (auto& thread : all) thread.join();
    }
}

extern "C" long long cells_scratch_floats(int n) {
    std::vector<float> base(1);
    return Memory().lay_out(base.data(), n);
}
