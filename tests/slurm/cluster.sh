#!/usr/bin/env bash
# One machine as a Slurm cluster, for the trial beside this file. As root, without systemd.
#
#   SLURM_BASE=DIR tests/slurm/cluster.sh start plain|accounting
#   SLURM_BASE=DIR tests/slurm/cluster.sh stop
#
#   apt-get install -y --no-install-recommends slurm-wlm slurm-wlm-basic-plugins munge     # and, for accounting,
#   apt-get install -y --no-install-recommends slurmdbd mariadb-server
#
# Its state is in SLURM_BASE. The links in /etc/slurm are needed: Snakemake's Slurm plug-in clears SLURM_* before its
# inner srun, SLURM_CONF among them. Jobs above their memory are killed by Slurm's own accounting, every two seconds.
set -euo pipefail

BASE=${SLURM_BASE:?set SLURM_BASE to a folder for its state}
HOST=$(hostname -s)
CONF=$BASE/etc/slurm.conf
DATABASE=$BASE/mysql/socket
MEMORY_MB=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 - 512))

wait_for() {
  for _ in $(seq 120); do
    if timeout 3 "$@" > /dev/null 2>&1; then return; fi
    sleep 0.25
  done
  echo "error: still failing after 30 s: $*" >&2
  return 1
}

write_settings() {
  local accounts=AccountingStorageType=accounting_storage/none
  if [ "$1" = accounting ]; then accounts=$'AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=localhost'; fi
  cat > "$CONF" << SETTINGS
ClusterName=trial
SlurmctldHost=$HOST(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$BASE/state
SlurmdSpoolDir=$BASE/spool
SlurmctldPidFile=$BASE/run/slurmctld.pid
SlurmdPidFile=$BASE/run/slurmd.pid
SlurmctldLogFile=$BASE/log/slurmctld.log
SlurmdLogFile=$BASE/log/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
$accounts
MinJobAge=300
KillWait=10
UnkillableStepTimeout=300
NodeName=$HOST NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$MEMORY_MB State=UNKNOWN
PartitionName=main Nodes=$HOST Default=YES MaxTime=INFINITE DefMemPerCPU=500 State=UP
SETTINGS
  mkdir -p /etc/slurm
  ln -sf "$CONF" /etc/slurm/slurm.conf
}

start_munge() {
  mkdir -p /run/munge
  chown munge /run/munge
  chmod 755 /run/munge "$BASE" "$BASE/run"
  [ -f "$BASE/munge/key" ] || (umask 077 && head -c 1024 /dev/urandom > "$BASE/munge/key")
  chown -R munge:munge "$BASE/munge"
  chmod 700 "$BASE/munge"
  setpriv --reuid=munge --regid=munge --clear-groups munged --key-file="$BASE/munge/key" --socket=/run/munge/munge.socket.2 \
    --pid-file="$BASE/munge/pid" --log-file="$BASE/munge/log" --seed-file="$BASE/munge/seed"
  wait_for munge -n -S /run/munge/munge.socket.2
}

start_accounting() {
  if [ ! -d "$BASE/mysql/mysql" ]; then
    mkdir -p "$BASE/mysql"
    chown mysql "$BASE/mysql"
    mariadb-install-db --user=mysql --datadir="$BASE/mysql" --auth-root-authentication-method=socket > "$BASE/log/database-setup.log" 2>&1
  fi
  mariadbd --no-defaults --user=mysql --datadir="$BASE/mysql" --socket="$DATABASE" --skip-networking --pid-file="$BASE/mysql/pid" \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 > "$BASE/log/database.log" 2>&1 &
  wait_for mariadb-admin --socket="$DATABASE" ping
  mariadb --socket="$DATABASE" -e "create database if not exists slurm;
    create user if not exists 'slurm'@'localhost' identified by 'trial'; grant all on slurm.* to 'slurm'@'localhost'"
  (umask 077 && cat > "$BASE/etc/slurmdbd.conf" << SETTINGS
AuthType=auth/munge
DbdHost=localhost
SlurmUser=root
LogFile=$BASE/log/slurmdbd.log
PidFile=$BASE/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageUser=slurm
StoragePass=trial
StorageLoc=slurm
SETTINGS
  )
  ln -sf "$BASE/etc/slurmdbd.conf" /etc/slurm/slurmdbd.conf
  MYSQL_UNIX_PORT=$DATABASE slurmdbd
  wait_for sacctmgr -n show cluster
  sacctmgr -i add cluster trial > /dev/null 2>&1 || true # it is there on a second start
  sacctmgr -i add account lab Description=lab Organization=lab > /dev/null 2>&1 || true
  sacctmgr -i add user root Account=lab > /dev/null 2>&1 || true
}

start() {
  mkdir -p "$BASE"/{etc,log,run,state,spool,munge}
  write_settings "$1"
  start_munge
  if [ "$1" = accounting ]; then start_accounting; fi
  slurmctld -f "$CONF" -c
  wait_for scontrol ping
  slurmd -f "$CONF" -N "$HOST"
  wait_for bash -c "sinfo --noheader --format %T | grep -qE 'idle|mix|alloc'"
  sinfo --Node --format "%N %T %c cores %m MB"
}

stop() {
  local pid file
  for file in run/slurmd.pid run/slurmctld.pid run/slurmdbd.pid mysql/pid munge/pid; do
    [ -f "$BASE/$file" ] || continue
    pid=$(cat "$BASE/$file")
    kill "$pid" 2> /dev/null || continue
    for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
  done
  for file in slurm.conf slurmdbd.conf; do
    if [ "$(readlink "/etc/slurm/$file")" = "$BASE/etc/$file" ]; then rm "/etc/slurm/$file"; fi
  done
}

case "${1:-} ${2:-}" in
  "start plain" | "start accounting") start "$2" ;;
  "stop ") stop ;;
  *) sed -n '2,7p' "$0" >&2; exit 2 ;;
esac
