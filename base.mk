# SPDX-License-Identifier: GPL-2.0
#
# The kernels that the overlay is built on.

# The point release to build on: the newest 6.12.y that apt offers, unless the
# caller says BASE=6.12.x. Looked up once, when it is first needed.
ifndef BASE
BASE = $(eval BASE := $(shell base/debs.sh newest))$(or $(BASE),$(error No BASE))
endif

# Debian's name of that kernel, such as 6.12.117+deb12.
ABI = $(eval ABI := $(shell base/debs.sh abi $(BASE)))$(or $(ABI),$(error No ABI))

# Debian's package versions that were tested, oldest to newest.
TESTED := 6.12.94-1 6.12.107-1~deb12u1 6.12.117-1~deb12u1
