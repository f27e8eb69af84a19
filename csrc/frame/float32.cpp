#include "frame/frame.h"

const fermt::FrameKernels fermt::FERMT_ISA::frame_float32 = kFrameKernels<Float32Products>;
