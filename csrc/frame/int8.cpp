#include "frame/frame.h"

const fermt::FrameKernels fermt::FERMT_ISA::frame_int8 = kFrameKernels<Int8Products>;
