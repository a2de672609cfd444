#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# join-cgroups.sh CGROUP... -- PROGRAM [ARGUMENT...]
# Enters the cgroups, then becomes the program. A process of its own because a program must be inside before it forks:
# then "every process of this host" is a question that the kernel answers, whoever crashed meanwhile.
set -eu
while [ "$1" != -- ]; do
  echo $$ >"$1/cgroup.procs"
  shift
done
shift
exec "$@"
