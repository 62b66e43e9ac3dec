#!/usr/bin/env bash
# A Slurm cluster of one node on this machine's loopback, for tests and for trying the engine `slurm` out.
#   scripts/slurm_node.sh start|stop|status FOLDER
# Needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge). Everything lies under FOLDER; nothing of the
# system's own Slurm is touched. `export SLURM_CONF=FOLDER/slurm.conf` lets sbatch, squeue and scancel find it.
set -euo pipefail
action=${1:?start, stop or status}
mkdir -p "${2:?a folder}"
folder=$(cd "$2" && pwd)
export SLURM_CONF=$folder/slurm.conf
for name in munged slurmctld slurmd; do
    command -v "$name" >/dev/null || PATH=$PATH:/usr/sbin
    command -v "$name" >/dev/null || { echo "no $name: apt-get install slurm-wlm munge" >&2; exit 3; }
done

write_conf() {
    # Processes are tracked by /proc: containers seldom let Slurm have a control group.
    cat >"$SLURM_CONF" <<CONF
ClusterName=persona
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${PERSONA_SLURM_PORT:-16817}
SlurmdPort=$((${PERSONA_SLURM_PORT:-16817} + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=60
MinJobAge=300
SlurmctldTimeout=30
SlurmdTimeout=30
SchedulerParameters=sched_interval=1,batch_sched_delay=1,sched_min_interval=100000
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc --all) RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
CONF
}

start_munge() {
    [ -s "$folder/munge.key" ] || { head -c 1024 /dev/urandom >"$folder/munge.key"; chmod 600 "$folder/munge.key"; }
    [ -S "$folder/munge.socket" ] && munge --socket "$folder/munge.socket" -n >/dev/null 2>&1 && return
    munged --force --socket "$folder/munge.socket" --key-file "$folder/munge.key" \
        --pid-file "$folder/munged.pid" --log-file "$folder/munged.log" --seed-file "$folder/munge.seed"
}

end() {
    [ -s "$folder/$1.pid" ] && kill "$(cat "$folder/$1.pid")" 2>/dev/null || true
}

case $action in
start)
    mkdir -p "$folder/state" "$folder/spool"
    chmod 755 "$folder"
    write_conf
    start_munge
    slurmctld && slurmd
    for _ in $(seq 60); do
        [ "$(sinfo -h -o %T 2>/dev/null)" = idle ] && { echo "export SLURM_CONF=$SLURM_CONF"; exit 0; }
        sleep 0.5
    done
    echo "the node did not become idle:" >&2
    tail -n 5 "$folder"/slurm*.log >&2
    exit 1
    ;;
stop) for name in slurmd slurmctld munged; do end "$name"; done ;;
status) sinfo ;;
*) echo "start, stop or status, not $action" >&2; exit 2 ;;
esac
