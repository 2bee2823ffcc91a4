// Streams, events and graphs, as the CUDA runtime's functions handle them.
#include <algorithm>

#include "tests/emulated_card/card.h"

using namespace gm::emulated;

// ---- streams

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return with_card([&](Card& card) {
    *stream = card.make_stream(flags != cudaStreamNonBlocking);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return with_card([&](Card& card) {
    if (!stream || stream == cudaStreamLegacy || !card.find(stream))
      return complain(cudaErrorInvalidResourceHandle, "closing of a stream that is not there");
    card.forget(stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return with_card([&](Card& card) {
    const std::shared_ptr<CUstream_st> found = card.find(stream);
    if (!found) return complain(cudaErrorInvalidResourceHandle, "waiting for a stream that is not there");
    return card.finish(found);
  });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return with_card([&](Card& card) { return card.wait(stream, event); });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return with_card([&](Card& card) { return card.submit(stream, [function, data] { function(data); }); });
}

// ---- events

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return with_card([&](Card& card) {
    *event = card.make_event(!(flags & cudaEventDisableTiming));
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return with_card([&](Card& card) {
    return card.forget(event)
               ? cudaSuccess
               : complain(cudaErrorInvalidResourceHandle, "closing of an event that is not there");
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return with_card([&](Card& card) { return card.record(event, stream); });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return with_card([&](Card& card) {
    if (!card.known(event))
      return complain(cudaErrorInvalidResourceHandle, "waiting for an event that is not there");
    if (event->capture) {
      event->capture->invalid = true;
      return cudaErrorCapturedEvent;
    }
    return event->mark ? card.finish(event->mark) : cudaSuccess;
  });
}

// The time is the host's: that which the emulation took.
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return with_card([&](Card& card) {
    for (const cudaEvent_t event : {start, end})
      if (!card.known(event) || !event->timing || !event->mark)
        return complain(cudaErrorInvalidResourceHandle, "time of an event that has none");
    if (!start->mark->reached || !end->mark->reached) return cudaErrorNotReady;
    const std::chrono::duration<float, std::milli> time = end->mark->when - start->mark->when;
    *milliseconds = time.count();
    return cudaSuccess;
  });
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return with_card([&](Card& card) { return card.begin_capture(stream, mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return with_card([&](Card& card) { return card.end_capture(stream, graph); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return with_card([&](Card& card) {
    const std::shared_ptr<CUstream_st> found = card.find(stream);
    if (!found) return complain(cudaErrorInvalidResourceHandle, "question to a stream that is not there");
    *status = !found->capture           ? cudaStreamCaptureStatusNone
              : found->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

// Of the nodes that may run the one captured last comes first: where branches do not wait for each other,
// they run in another order than they were written.
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  return with_card([&](Card& card) {
    const std::vector<Node>& nodes = graph->nodes;
    std::vector<std::vector<size_t>> behind(nodes.size());
    std::vector<size_t> waits(nodes.size()), free;  // free: a heap
    for (size_t i = 0; i < nodes.size(); ++i) {
      for (size_t before : nodes[i].after) behind[before].push_back(i);
      waits[i] = nodes[i].after.size();
      if (!waits[i]) free.push_back(i);
    }
    std::make_heap(free.begin(), free.end());
    auto order = std::make_shared<std::vector<std::function<void()>>>();
    while (!free.empty()) {
      std::pop_heap(free.begin(), free.end());
      const size_t next = free.back();
      free.pop_back();
      order->push_back(nodes[next].act);
      for (size_t i : behind[next])
        if (--waits[i] == 0) {
          free.push_back(i);
          std::push_heap(free.begin(), free.end());
        }
    }
    *ready = new CUgraphExec_st{std::move(order)};
    card.graphs_changed(1);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  return with_card([&](Card& card) {
    return card.submit(stream, [work = graph->work] {
      for (const auto& act : *work)
        if (act) act();
    });
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return with_card([&](Card&) {
    delete graph;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return with_card([&](Card& card) {
    card.graphs_changed(-1);
    delete graph;
    return cudaSuccess;
  });
}
