// SPDX-License-Identifier: Apache-2.0

/**
 * Which calls go on when there is little room left for anything: those that a person needs to save a plant, and those by which a
 * cluster stays a cluster. Every method that is not a read is in this table; a test holds it against the services.
 */
const ESSENTIAL: Readonly<Record<string, boolean>> = {
  'busbar.v1.VmService/StartVm': true,
  'busbar.v1.VmService/StopVm': true,
  'busbar.v1.VmService/RestartVm': true,
  'busbar.v1.VmService/OpenConsole': true,
  'busbar.v1.OperationService/CancelOperation': true,
  'busbar.v1.ClusterService/AdoptCluster': true,
  // Keeping VMs away from a host that smells of smoke.
  'busbar.v1.HostService/UpdateHost': true,
  'busbar.v1.CertificateService/RevokeCertificate': true,
  // Daemons whose certificate ends are out of the cluster, and their hosts' leases with them.
  'busbar.v1.CertificateService/RenewCertificate': true,
  'busbar.v1.JoinTokenService/DeleteJoinToken': true,
  // A host that is replaced. Its token was an admin's to give.
  'busbar.v1.JoinService/Join': true,

  'busbar.v1.VmService/CreateVm': false,
  'busbar.v1.VmService/UpdateVm': false,
  'busbar.v1.VmService/DeleteVm': false,
  'busbar.v1.ImageService/ImportImage': false,
  'busbar.v1.ImageService/DeleteImage': false,
  'busbar.v1.VolumeService/CreateVolume': false,
  'busbar.v1.VolumeService/ResizeVolume': false,
  'busbar.v1.VolumeService/DeleteVolume': false,
  'busbar.v1.NetworkService/CreateNetwork': false,
  'busbar.v1.NetworkService/UpdateNetwork': false,
  'busbar.v1.NetworkService/DeleteNetwork': false,
  'busbar.v1.CertificateService/IssueCertificate': false,
  'busbar.v1.JoinTokenService/CreateJoinToken': false,
};

/** Whether the table knows a method at all. */
export function isClassified(method: string): boolean {
  return ESSENTIAL[method] !== undefined;
}

export function isEssential(method: string): boolean {
  return ESSENTIAL[method] === true;
}
